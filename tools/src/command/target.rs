//! Which program a command line names, and whether a shared object can be preloaded into it.
//!
//! Everything is read from the file before anything is started: a loader that cannot preload says so on
//! the program's own stderr, or fails, and either would change the program's behaviour.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use object::elf::{DT_NEEDED, FileHeader64, PT_INTERP, SHT_DYNSYM};
use object::read::elf::{Dyn as _, ElfFile64, FileHeader as _, ProgramHeader as _, Sym as _};
use object::{Endianness, ReadCache};

/// Why a program cannot be recorded: what is wrong, the cause, what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) cause: String,
    pub(super) remedy: &'static str,
}

fn refuse<T>(cause: impl Into<String>, remedy: &'static str) -> Result<T, Refusal> {
    Err(Refusal { cause: cause.into(), remedy })
}

/// What the loader would make of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Elf {
    /// 64-bit and of this machine.
    pub(super) native: bool,
    /// The loader that it asks for; none in a static program.
    pub(super) interpreter: Option<String>,
    /// Shared objects that it asks for.
    pub(super) needed: Vec<String>,
    /// It defines `malloc` for all others.
    pub(super) has_malloc: bool,
}

/// The file that a shell would run.
pub(super) fn find(program: &OsStr, path: Option<&OsStr>) -> Result<PathBuf, Refusal> {
    let remedy = "name a program in PATH, or write its path";
    let shown = program.to_string_lossy();
    if shown.contains('/') {
        let file = PathBuf::from(program);
        return match fs::metadata(&file) {
            Ok(meta) if meta.is_file() && executable(&file) => Ok(file),
            Ok(meta) if meta.is_file() => {
                refuse(format!("{shown} is not executable"), "chmod +x, or name another file")
            }
            Ok(_) => refuse(format!("{shown} is not a file"), remedy),
            Err(error) => refuse(format!("{shown}: {error}"), remedy),
        };
    }
    let path = path.unwrap_or(OsStr::new("/usr/local/bin:/usr/bin:/bin"));
    std::env::split_paths(path)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file() && executable(file))
        .map_or_else(|| refuse(format!("{shown} is not in PATH"), remedy), Ok)
}

fn executable(file: &Path) -> bool {
    rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
}

/// Refuses what a preloaded object would not reach, or would change.
pub(super) fn check(file: &Path) -> Result<(), Refusal> {
    let file = interpreter_of_script(file)?;
    let shown = file.display();
    let unreadable = |error: &dyn std::fmt::Display| Refusal {
        cause: format!("{shown} cannot be examined: {error}"),
        remedy: "make the file readable: what cannot be preloaded must be known beforehand",
    };
    let meta = fs::metadata(&file).map_err(|error| unreadable(&error))?;
    if privileged(&file, &meta) {
        return refuse(
            format!(
                "{shown} gains privileges (setuid, setgid or file capabilities): the loader drops LD_PRELOAD"
            ),
            "record it as the user that it becomes, or a copy without the bits",
        );
    }
    let elf = read(&file).map_err(|error| unreadable(&error))?;
    judge(&shown.to_string(), elf.as_ref())
}

/// The same for a parsed file: pure.
fn judge(shown: &str, elf: Option<&Elf>) -> Result<(), Refusal> {
    let Some(elf) = elf else {
        return refuse(
            format!("{shown} is neither an ELF program nor a script that starts with #!"),
            "name the program that runs it",
        );
    };
    if !elf.native {
        return refuse(
            format!("{shown} is a program of another architecture or of 32 bits"),
            "record it on its own machine with a tailbeam built for it",
        );
    }
    let Some(interpreter) = &elf.interpreter else {
        return refuse(
            format!("{shown} is linked statically: no loader runs that could preload anything"),
            "link it dynamically; a Rust program can use TailbeamAlloc as its global allocator instead",
        );
    };
    if interpreter.contains("ld-musl") {
        return refuse(
            format!("{shown} runs on musl ({interpreter}); the preloaded object needs glibc"),
            "build it for a gnu target; a Rust program can use TailbeamAlloc as its global allocator instead",
        );
    }
    let sanitizer =
        |name: &&String| ["asan", "tsan", "msan", "lsan"].iter().any(|s| name.contains(s));
    if let Some(name) = elf.needed.iter().find(sanitizer) {
        return refuse(
            format!(
                "{shown} is linked with a sanitizer ({name}), which must come first and stops otherwise"
            ),
            "record a build without it",
        );
    }
    if elf.has_malloc {
        return refuse(
            format!("{shown} defines malloc itself: a preloaded one is never called"),
            "build it with the system's allocator, or use its allocator's own profile",
        );
    }
    Ok(())
}

/// Refuses to be second: of two preloaded allocators only the first is called.
pub(super) fn check_preloaded(given: Option<&OsStr>) -> Result<(), Refusal> {
    let given = given.unwrap_or_default().to_string_lossy().into_owned();
    for object in given.split([':', ' ']).filter(|object| !object.is_empty()) {
        // A name without a slash is the loader's to find; one that looks like an allocator is enough.
        let named = ["jemalloc", "tcmalloc", "mimalloc", "hoard", "heaptrack", "asan", "memray"];
        let known = named.iter().any(|name| object.contains(name));
        let exports = read(Path::new(object)).ok().flatten().is_some_and(|elf| elf.has_malloc);
        if known || exports {
            return refuse(
                format!("LD_PRELOAD already holds another allocator: {object}"),
                "unset LD_PRELOAD, or link the allocator: one that the program is linked with is recorded",
            );
        }
    }
    Ok(())
}

/// Follows `#!` lines to the program that the kernel will start, as often as the kernel does.
fn interpreter_of_script(file: &Path) -> Result<PathBuf, Refusal> {
    let mut file = file.to_owned();
    for _ in 0..4 {
        let mut start = Vec::new();
        let read = File::open(&file).and_then(|opened| opened.take(256).read_to_end(&mut start));
        let line = start.strip_prefix(b"#!").filter(|_| read.is_ok());
        let Some(line) = line.and_then(|rest| rest.split(|&byte| byte == b'\n').next()) else {
            return Ok(file);
        };
        let line = String::from_utf8_lossy(line);
        let Some(program) = line.split_whitespace().next() else {
            return refuse(
                format!("{} has an empty #! line", file.display()),
                "name its interpreter there",
            );
        };
        file = PathBuf::from(program);
    }
    refuse(format!("{} is a script of scripts", file.display()), "record its interpreter")
}

/// Whether the kernel would mark the process as privileged (AT_SECURE): the loader then trusts nothing
/// from the environment. A bit that changes nothing, as when root runs a setuid-root file, does not count.
fn privileged(file: &Path, meta: &Metadata) -> bool {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let set_uid = meta.mode() & 0o4000 != 0 && meta.uid() != uid;
    // setgid without the group's execute bit is a lock, not a privilege.
    let set_gid = meta.mode() & 0o2010 == 0o2010 && meta.gid() != gid;
    let mut value = [0u8; 64];
    let capabilities = rustix::fs::getxattr(file, "security.capability", &mut value).is_ok();
    set_uid || set_gid || (capabilities && uid != 0)
}

/// Reads what matters of a file; `None` when it is no ELF file.
fn read(path: &Path) -> std::io::Result<Option<Elf>> {
    let mut start = Vec::new();
    File::open(path)?.take(20).read_to_end(&mut start)?;
    if !start.starts_with(b"\x7fELF") {
        return Ok(None);
    }
    let machine = start.get(18..20).map_or(0, |m| u16::from_le_bytes([m[0], m[1]]));
    let ours = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    // Class 2: 64 bits; data 1: little-endian (elf(5)).
    if start.get(4..6) != Some(&[2, 1]) || machine != ours {
        return Ok(Some(Elf::default()));
    }
    let cache = ReadCache::new(File::open(path)?);
    parse(&cache).map(Some).map_err(std::io::Error::other)
}

fn parse(cache: &ReadCache<File>) -> Result<Elf, object::Error> {
    let file = ElfFile64::<Endianness, _>::parse(cache)?;
    let (endian, header): (_, &FileHeader64<Endianness>) = (file.endian(), file.elf_header());
    let mut elf = Elf { native: true, ..Elf::default() };
    for segment in header.program_headers(endian, cache)? {
        if segment.p_type(endian) == PT_INTERP {
            let bytes = segment.data(endian, cache).unwrap_or_default();
            let bytes = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
            elf.interpreter = Some(String::from_utf8_lossy(bytes).into_owned());
        }
    }
    let sections = header.sections(endian, cache)?;
    let symbols = sections.symbols(endian, cache, SHT_DYNSYM)?;
    elf.has_malloc = symbols.iter().any(|symbol| {
        !symbol.is_undefined(endian) && symbol.name(endian, symbols.strings()) == Ok(b"malloc")
    });
    if let Some((entries, link)) = sections.dynamic(endian, cache)? {
        let strings = sections.strings(endian, cache, link)?;
        for entry in entries.iter().filter(|entry| entry.tag(endian) == DT_NEEDED) {
            let name = entry.string(endian, strings)?;
            elf.needed.push(String::from_utf8_lossy(name).into_owned());
        }
    }
    Ok(elf)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(change: impl FnOnce(&mut Elf)) -> Elf {
        let loader = Some("/lib64/ld-linux-x86-64.so.2".to_owned());
        let mut elf = Elf { native: true, interpreter: loader, ..Elf::default() };
        change(&mut elf);
        elf
    }

    #[test]
    fn what_cannot_be_preloaded_is_refused_by_its_own_cause() {
        let cause = |elf: Option<Elf>| judge("p", elf.as_ref()).err().map(|refusal| refusal.cause);
        assert_eq!(cause(Some(elf(|_| {}))), None);
        assert!(cause(None).unwrap().contains("neither an ELF"));
        assert!(cause(Some(Elf::default())).unwrap().contains("another architecture"));
        assert!(cause(Some(elf(|elf| elf.interpreter = None))).unwrap().contains("statically"));
        let musl = elf(|elf| elf.interpreter = Some("/lib/ld-musl-x86_64.so.1".to_owned()));
        assert!(cause(Some(musl)).unwrap().contains("musl"));
        let sanitized = elf(|elf| elf.needed = vec!["libasan.so.8".to_owned()]);
        assert!(cause(Some(sanitized)).unwrap().contains("sanitizer"));
        assert!(cause(Some(elf(|elf| elf.has_malloc = true))).unwrap().contains("itself"));
    }

    #[test]
    fn this_test_is_a_program_that_can_be_preloaded() {
        let this = std::env::current_exe().unwrap();
        if cfg!(target_env = "musl") {
            // Built statically: that is refused, and said.
            assert!(check(&this).unwrap_err().cause.contains("statically"));
            return;
        }
        assert_eq!(check(&this), Ok(()));
        let elf = read(&this).unwrap().unwrap();
        assert!(elf.native && elf.interpreter.is_some());
        assert!(elf.needed.iter().any(|name| name.starts_with("libc.so")), "{:?}", elf.needed);
    }

    #[test]
    fn a_second_allocator_is_refused_and_other_objects_are_kept() {
        assert_eq!(check_preloaded(None), Ok(()));
        assert_eq!(check_preloaded(Some(OsStr::new("libfakeroot.so"))), Ok(()));
        let refusal = check_preloaded(Some(OsStr::new("libfoo.so:libjemalloc.so.2"))).unwrap_err();
        assert!(refusal.cause.contains("libjemalloc.so.2"));
    }

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        let path = OsStr::new("/nowhere:/bin:/usr/bin");
        assert!(find(OsStr::new("sh"), Some(path)).unwrap().ends_with("bin/sh"));
        let missing = find(OsStr::new("no-such-program"), Some(path)).unwrap_err();
        assert!(missing.cause.contains("not in PATH"));
        let plain = find(OsStr::new("/etc/passwd"), None).unwrap_err();
        assert!(plain.cause.contains("not executable"), "{plain:?}");
        assert!(find(OsStr::new("/bin"), None).unwrap_err().cause.contains("not a file"));
    }
}
