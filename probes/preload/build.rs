//! Link arguments of the shared object.

fn main() {
    // Our constructor runs before all others, so that what they allocate is seen (ld(1), -z initfirst).
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,initfirst");
    println!("cargo:rerun-if-changed=build.rs");
}
