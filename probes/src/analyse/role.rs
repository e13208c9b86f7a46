//! Whose function is it: a list of names, so that a stack can begin where the program asked for memory
//! and not in the machinery that fetched it. Unknown names belong to the program: what is hidden must be
//! known.

/// Whose a function is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The allocator's or the sampler's.
    Allocator,
    /// The language's own library's: containers, strings, iterators, libc.
    Library,
    /// The program's.
    Program,
}

/// Entry points of allocators, as linkers and compilers name them.
const ALLOCATORS: [&str; 22] = [
    "malloc",
    "calloc",
    "realloc",
    "reallocarray",
    "posix_memalign",
    "aligned_alloc",
    "memalign",
    "valloc",
    "pvalloc",
    "__libc_malloc",
    "__libc_calloc",
    "__libc_realloc",
    "__libc_memalign",
    "__rust_alloc",
    "__rust_alloc_zeroed",
    "__rust_realloc",
    "__rdl_alloc",
    "__rdl_realloc",
    "__rg_alloc",
    "__rg_realloc",
    "operator new",
    "operator new[]",
];

/// Beginnings of names of allocators and of the sampler.
const ALLOCATOR_PATHS: [&str; 9] = [
    "tailbeam_probes::collect",
    "<tailbeam_probes::collect",
    "tailbeam_preload::",
    "__rustc::__r",
    "alloc::alloc::",
    "<alloc::alloc::",
    "mi_",
    "_mi_",
    "je_",
];

/// Crates and namespaces of the languages' own libraries.
const LIBRARIES: [&str; 5] = ["alloc", "core", "std", "hashbrown", "__gnu_cxx"];

/// Shared objects of which no function is the program's.
const SYSTEM: [&str; 7] = [
    "libc.so",
    "libstdc++.so",
    "libc++.so",
    "libgcc_s.so",
    "libpthread.so",
    "ld-linux",
    "libtailbeam_preload.so",
];

/// Whose a function is, by its demangled name (empty when unknown) and the path of its module.
#[must_use]
pub fn role(name: &str, module: &str) -> Role {
    let file = module.rsplit('/').next().unwrap_or(module);
    let allocator = ALLOCATORS.contains(&name)
        || ALLOCATOR_PATHS.iter().any(|path| name.starts_with(path))
        || file.starts_with("libtailbeam_preload");
    if allocator {
        return Role::Allocator;
    }
    if SYSTEM.iter().any(|start| file.starts_with(start)) {
        return Role::Library;
    }
    // `<A as B>::f` is the program's when either is: its type with a trait of the library, or its trait.
    let inner = name.strip_prefix('<').unwrap_or(name);
    let (own, of) = match inner.split_once(" as ") {
        Some((own, of)) if name.starts_with('<') => (own, Some(of)),
        _ => (inner, None),
    };
    let library = |path: &str| LIBRARIES.contains(&crate_of(path));
    let foreign = match (crate_of(own), of) {
        // A type parameter or a primitive says nothing; the trait does.
        (first, Some(of)) if is_nobodys(first) => library(of),
        (_, Some(of)) => library(own) && library(of),
        (_, None) => library(own),
    };
    if foreign { Role::Library } else { Role::Program }
}

/// Parts of paths of source files: whose code lies there. Line tables without types name inlined functions
/// without their namespace (`allocated`, `from_elem`), so that the name alone says nothing.
const FILES: [(&str, Role); 7] = [
    ("probes/src/collect/heap/", Role::Allocator),
    ("probes/preload/src/", Role::Allocator),
    ("/library/alloc/src/alloc.rs", Role::Allocator),
    ("/library/alloc/", Role::Library),
    ("/library/core/", Role::Library),
    ("/library/std/", Role::Library),
    ("/hashbrown-", Role::Library),
];

/// [`role`], told the function's source file too, where line tables name it.
#[must_use]
pub fn role_in(name: &str, file: Option<&str>, module: &str) -> Role {
    let by_name = role(name, module);
    let known = FILES.iter().find(|(part, _)| file.is_some_and(|file| file.contains(part)));
    known.map_or(by_name, |(_, by_file)| by_name.min(*by_file))
}

/// First identifier of a path, past what a type may begin with.
fn crate_of(path: &str) -> &str {
    let mut rest = path;
    loop {
        let trimmed = ["<", "&", "*", "(", "[", "mut ", "const ", "dyn ", "void "]
            .iter()
            .find_map(|start| rest.strip_prefix(start));
        match trimmed {
            Some(next) => rest = next,
            None => break,
        }
    }
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    &rest[..end]
}

fn is_nobodys(first: &str) -> bool {
    let primitive = ["str", "bool", "char", "usize", "isize", "_", ""].contains(&first)
        || first.strip_prefix(['u', 'i', 'f']).is_some_and(|bits| bits.parse::<u8>().is_ok());
    let parameter = first.len() == 1 && first.starts_with(|c: char| c.is_ascii_uppercase());
    primitive || parameter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_frame_of_a_stack_is_the_programs() {
        let exe = "/opt/app";
        for (name, expected) in [
            ("malloc", Role::Allocator),
            ("operator new", Role::Allocator),
            ("__rustc::__rust_alloc", Role::Allocator),
            ("alloc::alloc::exchange_malloc", Role::Allocator),
            ("<alloc::alloc::Global as core::alloc::Allocator>::allocate", Role::Allocator),
            (
                "<tailbeam_probes::collect::heap::TailbeamAlloc as core::alloc::global::GlobalAlloc>::alloc",
                Role::Allocator,
            ),
            ("alloc::raw_vec::RawVecInner<A>::finish_grow", Role::Library),
            ("<alloc::vec::Vec<T> as core::clone::Clone>::clone", Role::Library),
            ("<T as alloc::slice::hack::ConvertVec>::to_vec", Role::Library),
            ("<[u8] as alloc::slice::Concat<u8>>::concat", Role::Library),
            ("std::vector<int>::push_back", Role::Library),
            ("__gnu_cxx::new_allocator<int>::allocate", Role::Library),
            ("<shop::Order as core::clone::Clone>::clone", Role::Program),
            ("<alloc::vec::Vec<u8> as shop::Store>::put", Role::Program),
            ("<T as shop::Store>::put", Role::Program),
            ("shop::Book<alloc::vec::Vec<u8>>::apply", Role::Program),
            ("<shop::Book<u8>>::apply", Role::Program),
            ("shop::run::{closure#0}", Role::Program),
            ("alloc_order", Role::Program),
            ("", Role::Program),
        ] {
            assert_eq!(role(name, exe), expected, "{name}");
        }
        let inlined = |file| role_in("allocated", Some(file), exe);
        assert_eq!(inlined("/w/probes/src/collect/heap/global.rs"), Role::Allocator);
        assert_eq!(inlined("/rustc/5980/library/alloc/src/raw_vec/mod.rs"), Role::Library);
        assert_eq!(inlined("/home/u/shop/src/main.rs"), Role::Program);
        let own = role_in("alloc::vec::from_elem", Some("/home/u/shop/src/main.rs"), exe);
        assert_eq!(own, Role::Library, "its name says more");
        assert_eq!(role("strdup", "/lib/x86_64-linux-gnu/libc.so.6"), Role::Library);
        assert_eq!(role("", "/usr/lib/libstdc++.so.6.0.30"), Role::Library);
        assert_eq!(role("anything", "/x/libtailbeam_preload.so"), Role::Allocator);
    }
}
