#![expect(
    unsafe_code,
    reason = "runs before main: environment, limits, constructors, fork handlers"
)]
//! Start, fork and end: which state file this process writes, and why it may write none.
//!
//! The launcher hands over one variable, `TAILBEAM_HEAP`: `1;MEAN;EXACT;DIRECTORY`. The first process to
//! start takes `heap.tbh` in the directory; each other one, by fork or exec, takes `heap-PID.tbh`. A
//! process that goes on as another program (exec) keeps its place: what it was before is renamed.
//!
//! Whatever goes wrong becomes a line in `heap-PID.refused`, which the launcher prints after the end. How
//! many files there may be is counted in `heap-count`, one page that all processes of a run share: word 0
//! state files, word 1 processes that came too late for one.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU64, Ordering};
use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tailbeam_probes::collect::heap::collector::Collector;
use tailbeam_probes::collect::heap::{HeapConfig, HeapError, OnFork};

use crate::{hook, map, real, sink, thread};

/// Name of the variable.
const VARIABLE: &CStr = c"TAILBEAM_HEAP";
/// State files of one run: a build with thousands of compilers must not fill the disk.
const FILES_MAX: u64 = 256;
const COUNT_BYTES: usize = 4_096;
const PATH_BYTES: usize = 4_096;
/// A file-size limit below this is a trap: to exceed it kills (SIGXFSZ).
const FILE_LIMIT: u64 = 256 << 20;
/// Most objects: sampled and exact, in the first process and in others.
const OBJECTS: [[u32; 2]; 2] = [[1 << 16, 1 << 14], [1 << 20, 1 << 16]];

/// What the hooks do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The constructor has not run yet.
    Waiting,
    /// Stay out of the way.
    Refused,
    /// Record what the countdown picks.
    Sampling,
    /// Record every block.
    Exact,
}

static MODE: AtomicU8 = AtomicU8::new(0);

/// What the hooks do now.
pub(crate) fn mode() -> Mode {
    // Acquire pairs with the Release in `set`: the collector is there before the mode that needs it.
    match MODE.load(Ordering::Acquire) {
        0 => Mode::Waiting,
        1 => Mode::Refused,
        2 => Mode::Sampling,
        _ => Mode::Exact,
    }
}

fn set(mode: Mode) {
    MODE.store(mode as u8, Ordering::Release);
}

/// log2 of the distance of the addresses that `map` holds.
pub(crate) fn bits() -> u32 {
    if mode() == Mode::Exact { map::EXACT_BITS } else { map::SAMPLED_BITS }
}

/// What the launcher asked for.
struct Asked {
    mean_bytes: u32,
    exact: bool,
    dir: PathBuf,
}

static ASKED: OnceLock<Asked> = OnceLock::new();
/// The page that counts; null when it could not be mapped: then nothing starts.
static COUNT: AtomicPtr<AtomicU64> = AtomicPtr::new(core::ptr::null_mut());

/// glibc hands the arguments and the environment to constructors; `environ` itself is not set yet, since
/// this object is initialised before all others (`-z initfirst`).
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn(c_int, *const *const c_char, *const *const c_char) = constructor;

#[used]
#[unsafe(link_section = ".fini_array")]
static DESTRUCTOR: extern "C" fn() = destructor;

extern "C" fn constructor(
    count: c_int,
    arguments: *const *const c_char,
    environment: *const *const c_char,
) {
    let _ = count;
    real::resolve();
    // What the start itself allocates is not the program's.
    let started = hook::aside(|| {
        let asked = variable(environment).and_then(|value| parse(value.to_bytes()))?;
        let asked = ASKED.get_or_init(|| asked);
        begin(asked, &command(arguments)).then_some(asked.exact)
    });
    match started.flatten() {
        Some(true) => {
            real::FREE_NEXT.store(hook::free as *mut c_void, Ordering::Relaxed);
            set(Mode::Exact);
        }
        Some(false) => set(Mode::Sampling),
        None => set(Mode::Refused),
    }
}

/// Strings up to the null that ends the array.
fn strings<'a>(array: *const *const c_char) -> impl Iterator<Item = &'a CStr> {
    (0..).map_while(move |index| {
        if array.is_null() {
            return None;
        }
        // SAFETY: the kernel's arrays of arguments and environment end in a null, where this stops.
        let string = unsafe { *array.wrapping_add(index) };
        // SAFETY: each of them ends in a 0 and lives as long as the process.
        (!string.is_null()).then(|| unsafe { CStr::from_ptr(string) })
    })
}

fn variable<'a>(environment: *const *const c_char) -> Option<&'a CStr> {
    let name = VARIABLE.to_bytes();
    strings(environment).find_map(|string| {
        let bytes = string.to_bytes_with_nul();
        let value = bytes.strip_prefix(name)?.strip_prefix(b"=")?;
        CStr::from_bytes_with_nul(value).ok()
    })
}

fn parse(value: &[u8]) -> Option<Asked> {
    let mut parts = value.splitn(4, |&byte| byte == b';');
    let number = |part: Option<&[u8]>| core::str::from_utf8(part?).ok()?.parse::<u32>().ok();
    if parts.next()? != b"1" {
        return None;
    }
    let (mean_bytes, exact) = (number(parts.next())?, number(parts.next())? == 1);
    Some(Asked { mean_bytes, exact, dir: PathBuf::from(OsStr::from_bytes(parts.next()?)) })
}

/// The command line, cut where a title would be.
fn command(arguments: *const *const c_char) -> String {
    let parts: Vec<_> = strings(arguments).take(64).map(CStr::to_string_lossy).collect();
    let mut command = parts.join(" ");
    while command.len() > 1_000 {
        command.pop();
    }
    command
}

/// Starts the collector. Whether it started.
fn begin(asked: &Asked, command: &str) -> bool {
    let started = limits().and_then(|()| {
        share(&asked.dir)?;
        if !claim() {
            return Err(String::new());
        }
        let (path, first) = place(&asked.dir)?;
        let config = HeapConfig {
            mean_bytes: asked.mean_bytes,
            exact: asked.exact,
            objects_max: OBJECTS[usize::from(asked.exact)][usize::from(!first)],
            command: command.to_owned(),
            on_fork: OnFork::Stop,
            tables: true,
            ..HeapConfig::new(path)
        };
        let collector = Collector::create(&config).map_err(|error| {
            // A file without contents would be taken for a damaged one.
            let _ = fs::remove_file(&config.path);
            match &error {
                HeapError::File { bytes, error, .. }
                    if error.kind() == std::io::ErrorKind::OutOfMemory =>
                {
                    format!("the kernel refused {bytes} bytes of address space; raise `ulimit -v`")
                }
                _ => error.to_string(),
            }
        })?;
        sink::start(collector);
        // SAFETY: the handlers live as long as this object, which is never unloaded (pthread_atfork(3)).
        unsafe { libc::pthread_atfork(Some(forks), Some(parent), Some(forked)) };
        Ok(())
    });
    if let Err(cause) = started.as_ref().map_err(|cause| cause.as_bytes())
        && !cause.is_empty()
    {
        refuse(asked.dir.as_os_str().as_bytes(), cause);
    }
    started.is_ok()
}

unsafe extern "C" fn forks() {
    let held = hook::aside(sink::before_fork).unwrap_or(false);
    thread::set_forking(held);
}

unsafe extern "C" fn parent() {
    if thread::set_forking(false) {
        sink::after_fork();
    }
}

/// Runs in the child between fork and its return: system calls only, nothing allocates.
unsafe extern "C" fn forked() {
    let Some(asked) = ASKED.get() else { return };
    hook::aside(|| {
        let dir = asked.dir.as_os_str().as_bytes();
        let mut path = [0u8; PATH_BYTES];
        let process = std::process::id();
        if !claim() {
            return;
        }
        let went_on = file_name(&mut path, dir, format_args!("heap-{process}.tbh\0"))
            .is_some_and(sink::forked);
        if !went_on {
            refuse(dir, b"a forked child could not make a state file of its own");
        }
    });
}

/// `DIR/NAME` in a buffer; the name ends in a 0.
fn file_name<'a>(
    buffer: &'a mut [u8; PATH_BYTES],
    dir: &[u8],
    name: core::fmt::Arguments<'_>,
) -> Option<&'a CStr> {
    let mut rest = &mut buffer[..];
    rest.write_all(dir).ok()?;
    rest.write_all(b"/").ok()?;
    rest.write_fmt(name).ok()?;
    CStr::from_bytes_until_nul(buffer).ok()
}

/// Maps the page that counts.
fn share(dir: &Path) -> Result<(), String> {
    let path = dir.join("heap-count");
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let open =
        fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let file = open.map_err(failed)?;
    file.set_len(COUNT_BYTES as u64).map_err(failed)?;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let (null, fd) = (core::ptr::null_mut(), file.as_raw_fd());
    // SAFETY: a fresh mapping at an address of the kernel's choice (mmap(2)); it is never unmapped.
    let page = unsafe { libc::mmap(null, COUNT_BYTES, access, libc::MAP_SHARED, fd, 0) };
    if page == libc::MAP_FAILED {
        return Err(format!(
            "the kernel refused a page of address space: {}",
            std::io::Error::last_os_error()
        ));
    }
    COUNT.store(page.cast(), Ordering::Release);
    Ok(())
}

/// Counts one more state file; false, and counted too, when there are enough.
fn claim() -> bool {
    let count = COUNT.load(Ordering::Acquire);
    if count.is_null() {
        return false;
    }
    // SAFETY: the page is mapped for good, and its words are written by atomics only.
    let files = unsafe { &*count };
    // SAFETY: as above; the second word of the page.
    let late = unsafe { &*count.wrapping_add(1) };
    let more = |files| (files < FILES_MAX).then_some(files + 1);
    let claimed = files.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
    if !claimed {
        late.fetch_add(1, Ordering::Relaxed);
    }
    claimed
}

fn limits() -> Result<(), String> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the struct is ours to fill (getrlimit(2)).
    let rc = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) };
    if rc == 0 && limit.rlim_cur < FILE_LIMIT {
        return Err(format!(
            "files are limited to {} bytes (ulimit -f); raise it to {FILE_LIMIT} or more",
            limit.rlim_cur
        ));
    }
    Ok(())
}

/// The state file of this process, and whether it is the first. An older file of the same process is
/// renamed: the process went on as another program.
fn place(dir: &Path) -> Result<(PathBuf, bool), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", dir.display());
    let first = dir.join("heap.tbh");
    let create = |path: &Path| fs::OpenOptions::new().write(true).create_new(true).open(path);
    match create(&first) {
        Ok(_) => return Ok((first, true)),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error)),
    }
    let process = std::process::id();
    let (path, is_first) = match writer(&first) {
        Some(writer) if writer == process => (first, true),
        _ => (dir.join(format!("heap-{process}.tbh")), false),
    };
    if path.exists() {
        // As many names as there may be files.
        let free = (0..FILES_MAX)
            .map(|number| dir.join(format!("heap-{process}.before-{number}.tbh")))
            .find(|old| !old.exists());
        fs::rename(&path, free.ok_or("no free name")?).map_err(failed)?;
    }
    Ok((path, is_first))
}

/// The process that wrote a state file.
fn writer(path: &Path) -> Option<u32> {
    use std::io::Read as _;
    let mut start = [0u8; 40];
    fs::File::open(path).ok()?.read_exact(&mut start).ok()?;
    // Word 4 of the header.
    let word = start.last_chunk::<8>()?;
    u32::try_from(u64::from_le_bytes(*word)).ok()
}

/// Leaves word for the launcher; system calls only.
fn refuse(dir: &[u8], cause: &[u8]) {
    let mut path = [0u8; PATH_BYTES];
    let process = std::process::id();
    let Some(path) = file_name(&mut path, dir, format_args!("heap-{process}.refused\0")) else {
        return;
    };
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_CLOEXEC;
    // SAFETY: a string that ends in a 0 (open(2)).
    let fd = unsafe { libc::open(path.as_ptr(), flags, 0o644) };
    if fd < 0 {
        // Nobody is left to tell.
        return;
    }
    // SAFETY: a descriptor that was just opened and that nobody else has.
    let mut file = unsafe { fs::File::from_raw_fd(fd) };
    let _ = write!(file, "process {process}: ");
    let _ = file.write_all(cause);
    let _ = file.write_all(b"\n");
}

extern "C" fn destructor() {
    hook::aside(sink::end);
}
