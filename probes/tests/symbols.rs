//! Symbols of programs that the system's compilers made a moment ago: what a frame is called is known
//! from the source here, what is missing is taken away with the system's own tools.
#![expect(clippy::unwrap_used, reason = "a test reports by panicking")]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use tailbeam_probes::analyse::symbols::{Function, Resolved, Symbols, demangle, symbolise};
use tailbeam_probes::record::heap::{Frame, HeapSnapshot, Module, Site};

const C: &str = r#"#include <stdio.h>
__attribute__((noinline)) void *here(void) { return __builtin_return_address(0); }
static inline __attribute__((always_inline)) void *inner(void) {
    return here();
}
__attribute__((noinline)) void *outer(void) {
    void *p = inner();
    __asm__ volatile("" ::: "memory");
    return p;
}
int main(void) { printf("%lx\n", (unsigned long)outer()); }
"#;

const CXX: &str = r#"#include <cstdio>
__attribute__((noinline)) void *here() { return __builtin_return_address(0); }
namespace shop { template <class T> struct Book {
    __attribute__((noinline)) void *apply(T, const char *) {
        void *p = here();
        __asm__ volatile("" ::: "memory");
        return p;
    }
}; }
int main() { shop::Book<int> b; std::printf("%lx\n", (unsigned long)b.apply(1, "x")); }
"#;

const RUST: &str = r#"
mod shop { pub struct Book<T>(pub T);
    impl<T: Copy> Book<T> {
        #[inline(never)] pub fn apply(&self) -> T { std::hint::black_box(self.0) }
    }
}
fn main() {
    std::hint::black_box(shop::Book(7u8).apply());
    // One byte into the function, as a return address would be.
    println!("{:x}", shop::Book::<u8>::apply as fn(&shop::Book<u8>) -> u8 as usize + 1);
}
"#;

fn sh(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A program built where it is wanted, and the address that it prints.
fn build(dir: &Path, name: &str, source: &str, compiler: &[&str]) -> (PathBuf, u64) {
    let (text, program) = (dir.join(name), dir.join("program"));
    fs::write(&text, source).unwrap();
    let paths = [text.to_str().unwrap(), "-o", program.to_str().unwrap()];
    sh(compiler[0], &[&compiler[1..], &paths].concat());
    let address = u64::from_str_radix(sh(program.to_str().unwrap(), &[]).trim(), 16).unwrap();
    (program, address)
}

fn build_id(program: &Path) -> Vec<u8> {
    let notes = sh("readelf", &["-n", program.to_str().unwrap()]);
    let id =
        notes.split("Build ID: ").nth(1).map_or("", |rest| rest.split_whitespace().next().unwrap());
    (0..id.len() / 2).map(|k| u8::from_str_radix(&id[2 * k..2 * k + 2], 16).unwrap()).collect()
}

fn resolve(
    program: &Path,
    build_id: Vec<u8>,
    address: u64,
    extra: &[String],
) -> (Symbols, Vec<Function>) {
    let frame = Frame { module: 0, address };
    let path = program.display().to_string();
    let snapshot = HeapSnapshot {
        modules: vec![Module { path, build_id, ..Module::default() }],
        sites: vec![Site { id: 1, frames: vec![frame], truncated: false }],
        ..HeapSnapshot::default()
    };
    let symbols = symbolise(&snapshot, extra, &|path| fs::read(path));
    let functions = symbols.of(&frame).to_vec();
    (symbols, functions)
}

fn short(functions: &[Function]) -> Vec<(&str, &str, Option<u32>)> {
    functions
        .iter()
        .map(|f| {
            let name = f.file.as_deref().map_or("", |path| path.rsplit('/').next().unwrap());
            (f.name.as_str(), name, f.line)
        })
        .collect()
}

const GCC: &[&str] = &["cc", "-O2", "-g", "-no-pie", "-Wl,--build-id"];

#[test]
fn inlined_frames_come_with_their_own_lines() {
    let dir = tempfile::tempdir().unwrap();
    for level in [&["-gdwarf-4"][..], &["-gdwarf-5"], &["-gdwarf-5", "-gz"], &["-fPIC", "-O1"]] {
        let (program, address) = build(dir.path(), "a.c", C, &[GCC, level].concat());
        let (symbols, functions) = resolve(&program, build_id(&program), address, &[]);
        assert_eq!(
            short(&functions),
            [("inner", "a.c", Some(4)), ("outer", "a.c", Some(7))],
            "{level:?}"
        );
        assert_eq!(
            (&symbols.modules[..], &symbols.unproven[..]),
            (&[Resolved::Lines][..], &[][..])
        );
    }
}

#[test]
fn names_are_as_people_wrote_them() {
    let dir = tempfile::tempdir().unwrap();
    let cxx = ["c++", "-O2", "-g", "-no-pie", "-Wl,--build-id"];
    let (program, address) = build(dir.path(), "a.cc", CXX, &cxx);
    let (_, functions) = resolve(&program, build_id(&program), address, &[]);
    assert_eq!(short(&functions), [("shop::Book<int>::apply", "a.cc", Some(5))]);
    // What stable rustc does by itself, and v0 where that is not yet the same; with line tables alone DWARF knows a
    // function without its path.
    for more in
        [&["-g"][..], &["-g", "-Csymbol-mangling-version=v0"], &["-Cdebuginfo=line-tables-only"]]
    {
        let rustc = ["rustc", "-Copt-level=1", "-Crelocation-model=static", "-Clink-arg=-no-pie"];
        let rustc = [&rustc[..], more];
        let (program, address) = build(dir.path(), "a.rs", RUST, &rustc.concat());
        let (symbols, functions) = resolve(&program, build_id(&program), address, &[]);
        let [function] = &functions[..] else { panic!("{functions:?} {symbols:?}") };
        assert!(
            matches!(
                &*function.name,
                "<program::shop::Book<u8>>::apply"
                    | "<a::shop::Book<u8>>::apply"
                    | "a::shop::Book<T>::apply"
            ),
            "{more:?}: {function:?}"
        );
        assert_eq!(function.line, Some(4), "{function:?}");
    }
    assert_eq!(
        demangle("_ZN5alloc7raw_vec11finish_grow17h0123456789abcdefE"),
        "alloc::raw_vec::finish_grow"
    );
    assert_eq!(demangle("_Znwm"), "operator new");
    assert_eq!(demangle("malloc@@GLIBC_2.2.5"), "malloc");
    assert_eq!(demangle("_Zbroken"), "_Zbroken");
}

#[test]
fn what_is_missing_is_said_and_what_remains_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let (program, address) = build(dir.path(), "a.c", C, GCC);
    let path = program.to_str().unwrap();
    let id = build_id(&program);
    let debug = dir.path().join("store/.build-id");
    let hex: String = id.iter().map(|b| format!("{b:02x}")).collect();
    fs::create_dir_all(debug.join(&hex[..2])).unwrap();
    let debug = debug.join(&hex[..2]).join(format!("{}.debug", &hex[2..]));
    sh("objcopy", &["--only-keep-debug", path, debug.to_str().unwrap()]);
    let missing = |symbols: &Symbols| {
        symbols.modules[0].missing().map(ToString::to_string).unwrap_or_default()
    };

    sh("strip", &["--strip-debug", path]);
    let (symbols, functions) = resolve(&program, id.clone(), address, &[]);
    assert_eq!(short(&functions), [("outer", "", None)]);
    assert!(matches!(symbols.modules[0], Resolved::NamesOnly(_)));
    assert!(missing(&symbols).contains("no debug information"), "{}", missing(&symbols));

    sh("strip", &[path]);
    let (symbols, functions) = resolve(&program, id.clone(), address, &[]);
    assert_eq!(functions, []);
    assert!(missing(&symbols).contains("is stripped") && missing(&symbols).contains(&hex));

    // The debug file of that build-id brings everything back.
    let extra = dir.path().join("store").display().to_string();
    let (symbols, functions) = resolve(&program, id.clone(), address, &[extra]);
    assert_eq!(short(&functions), [("inner", "a.c", Some(4)), ("outer", "a.c", Some(7))]);
    assert_eq!(symbols.modules, [Resolved::Lines]);
}

#[test]
fn a_module_is_resolved_by_the_build_that_ran_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let (program, address) = build(dir.path(), "a.c", C, GCC);
    let id = build_id(&program);
    let missing = |symbols: &Symbols| {
        symbols.modules[0].missing().map(ToString::to_string).unwrap_or_default()
    };

    // Another build at the same place.
    let saved = dir.path().join("saved");
    fs::create_dir(&saved).unwrap();
    fs::rename(&program, saved.join("program")).unwrap();
    build(dir.path(), "a.c", &C.replace("inner", "other"), GCC);
    let (symbols, functions) = resolve(&program, id.clone(), address, &[]);
    assert_eq!(functions, []);
    assert!(missing(&symbols).contains("was replaced since the run"), "{}", missing(&symbols));
    let (_, functions) = resolve(&program, id.clone(), address, &[saved.display().to_string()]);
    assert_eq!(functions.len(), 2, "the build that ran is found by --symbols");

    // None at all, one that is no ELF file, one without an id, a mapping without a file.
    fs::remove_file(&program).unwrap();
    let (symbols, _) = resolve(&program, id.clone(), address, &[]);
    assert!(missing(&symbols).contains("cannot read"), "{}", missing(&symbols));
    fs::write(&program, "#!/bin/sh").unwrap();
    let (symbols, _) = resolve(&program, Vec::new(), address, &[]);
    assert!(missing(&symbols).contains("not a readable ELF"), "{}", missing(&symbols));
    let (symbols, _) = resolve(&program, id, address, &[]);
    assert!(missing(&symbols).contains("its build-id is none"), "{}", missing(&symbols));
    let (symbols, functions) = resolve(&saved.join("program"), Vec::new(), address, &[]);
    assert_eq!((functions.len(), &symbols.unproven[..]), (2, &[0][..]));
    let (symbols, _) = resolve(Path::new("[vdso]"), Vec::new(), address, &[]);
    assert!(missing(&symbols).contains("[vdso] is not a file"), "{}", missing(&symbols));
}

#[test]
fn an_unreadable_disk_is_a_stated_mode_and_damage_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    let (program, address) = build(dir.path(), "a.c", C, GCC);
    let bytes = fs::read(&program).unwrap();
    let frame = Frame { module: 0, address };
    let snapshot = HeapSnapshot {
        modules: vec![Module { path: "/x/program".to_owned(), ..Module::default() }],
        sites: vec![Site { id: 1, frames: vec![frame], truncated: false }],
        ..HeapSnapshot::default()
    };
    let symbols = symbolise(&snapshot, &[], &|_| Err(io::ErrorKind::PermissionDenied.into()));
    let why = symbols.modules[0].missing().unwrap().to_string();
    assert!(why.contains("permission denied") && why.contains("--symbols"), "{why}");
    // Truncated at any place: an answer, whatever it is.
    for kept in (0..bytes.len()).step_by(bytes.len() / 97) {
        let symbols = symbolise(&snapshot, &[], &|path| match path {
            "/x/program" => Ok(bytes[..kept].to_vec()),
            _ => Err(io::ErrorKind::NotFound.into()),
        });
        assert_eq!(symbols.modules.len(), 1);
    }
    // Every byte of the line program and its neighbours turned over in turn.
    for at in (0..bytes.len()).step_by(bytes.len() / 199) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0xff;
        let _ = symbolise(&snapshot, &[], &|path| match path {
            "/x/program" => Ok(damaged.clone()),
            _ => Err(io::ErrorKind::NotFound.into()),
        });
    }
}
