//! Compiles `hook.c`: mimalloc's source, as its crate brings it, with our fast paths in the same unit.

use std::path::Path;

fn main() {
    let source = "src/collect/heap/hook.c";
    println!("cargo:rerun-if-changed={source}");
    println!("cargo:rerun-if-changed=build.rs");
    // libmimalloc-sys says where its headers lie; the sources lie beside them.
    let include = std::env::var("DEP_MIMALLOC_INCLUDE_DIR").expect("libmimalloc-sys says it");
    let mimalloc = Path::new(&include).join("../src");
    cc::Build::new()
        .file(source)
        .include(&include)
        .include(mimalloc)
        // Whatever the profile: a program that is measured in a build for tests pays for no slower allocator.
        .opt_level(3)
        .define("NDEBUG", None)
        .define("MI_DEBUG", "0")
        .define("MI_BUILD_RELEASE", None)
        .flag_if_supported("-ftls-model=initial-exec")
        // Fast paths call nothing, so they need no frame; others have one, for unwinding.
        .flag_if_supported("-fno-omit-frame-pointer")
        .flag_if_supported("-momit-leaf-frame-pointer")
        // Names of mimalloc stay inside, where the compiler knows how: a program may link another mimalloc.
        .flag_if_supported("-fwhole-program")
        .warnings(false)
        .compile("tailbeam_hook");
}
