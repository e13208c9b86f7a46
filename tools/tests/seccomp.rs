#![expect(unsafe_code, reason = "a seccomp filter between fork and exec")]
//! What a container with a seccomp profile shows its user: io_uring_setup or perf_event_open answers EPERM.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// The same number on every architecture.
const IO_URING_SETUP: u32 = 425;

#[expect(clippy::cast_possible_truncation, reason = "the opcodes of BPF have 16 bits")]
const fn step(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

/// `errno` instead of the system call `number`, everything else as usual.
fn refuse(number: u32, errno: i32) -> io::Result<()> {
    let refused = libc::SECCOMP_RET_ERRNO | errno.unsigned_abs();
    // Load the call's number (offset 0 of seccomp_data); one step further when it differs.
    let mut filter = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, refused),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    // SAFETY: prctl(2) with plain numbers.
    let bound = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    let mode = libc::SECCOMP_MODE_FILTER;
    let pointer = (&raw const program).cast::<libc::c_void>();
    // SAFETY: the program and its filter live through the call; the kernel copies them.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, pointer) };
    let failed = bound != 0 || set != 0;
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[test]
fn a_refused_or_missing_io_uring_is_one_clear_error_and_exit_5() {
    for (errno, cause, remedy) in
        [(libc::EPERM, "seccomp", "remedy:"), (libc::ENOSYS, "no io_uring", "Linux 6.1")]
    {
        let store = tempfile::tempdir().expect("a place");
        let mut command = Command::new(env!("CARGO_BIN_EXE_tailbeam"));
        command.arg("--store").arg(store.path()).args(["soak", "--agents", "10"]);
        // SAFETY: between fork and exec only prctl(2) is called, which is async-signal-safe.
        unsafe { command.pre_exec(move || refuse(IO_URING_SETUP, errno)) };
        let output = command.output().expect("it starts");
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(5), "{err}");
        assert!(err.contains(cause) && err.contains(remedy), "{err}");
        assert!(output.stdout.is_empty());
        let begun = std::fs::read_dir(store.path()).expect("readable").count();
        assert_eq!(begun, 0, "nothing was begun");
    }
}

#[test]
fn a_refused_perf_is_a_stated_mode_and_exit_0() {
    let number = u32::try_from(libc::SYS_perf_event_open).expect("a small number");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tailbeam"));
    command.arg("doctor");
    // SAFETY: between fork and exec only prctl(2) is called, which is async-signal-safe.
    unsafe { command.pre_exec(move || refuse(number, libc::EPERM)) };
    let output = command.output().expect("it starts");
    let out = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{out}");
    for line in [
        "WARN counters  CPU time, page faults, context switches (no perf); cycles, instructions, cache-misses, branch-misses, cpu-migrations unknown: EPERM",
        "WARN off-cpu   schedstat only: totals of waiting, no single interval; switch records unknown: EPERM",
        "WARN sampling  nothing; samples unknown: EPERM",
        "allow perf_event_open in the container's seccomp profile",
    ] {
        assert!(out.contains(line), "{line}\n{out}");
    }
}
