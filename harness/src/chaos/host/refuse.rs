#![expect(unsafe_code, reason = "a filter of system calls has no safe wrapper")]
//! A system call that the kernel refuses to one program: by a filter (seccomp) that a helper of ours sets for itself
//! before it becomes the program. Nobody can take it back, so it is of the program's whole life; it ends with it.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use rustix::thread::set_no_new_privs;
use serde::{Deserialize, Serialize};

use super::Launcher;
use super::failure::{self, Failure};
use super::injector::Capability;

/// First word of the helper.
const WORD: &str = "refuse";
/// What filters can do here (seccomp(2)); the file came with 4.14.
const ACTIONS: &str = "/proc/sys/kernel/seccomp/actions_avail";

/// A system call that can be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// No counter can be opened: EACCES, as where `perf_event_paranoid` refuses them.
    PerfEventOpen,
    /// No ring can be made: EPERM, as in a container.
    IoUringSetup,
}

impl Call {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PerfEventOpen => "perf_event_open",
            Self::IoUringSetup => "io_uring_setup",
        }
    }

    /// Name of what it is answered with.
    #[must_use]
    pub const fn answer(self) -> &'static str {
        match self {
            Self::PerfEventOpen => "EACCES",
            Self::IoUringSetup => "EPERM",
        }
    }

    const fn number(self) -> libc::c_long {
        match self {
            Self::PerfEventOpen => libc::SYS_perf_event_open,
            Self::IoUringSetup => libc::SYS_io_uring_setup,
        }
    }

    const fn errno(self) -> i32 {
        match self {
            Self::PerfEventOpen => libc::EACCES,
            Self::IoUringSetup => libc::EPERM,
        }
    }

    /// Words before a program with its arguments that have it refused this call; all become it.
    pub(super) fn words(self, launcher: &Launcher) -> Vec<String> {
        let program = launcher.program.display().to_string();
        let ours = ["--", WORD, self.name()].map(str::to_owned);
        [program].into_iter().chain(launcher.args.iter().cloned()).chain(ours).collect()
    }

    /// Reads the helper's words: what is refused, and the program with its arguments.
    #[must_use]
    pub fn parse(words: &[String]) -> Option<(Self, &[String])> {
        let [word, name, program @ ..] = words else { return None };
        let call = [Self::PerfEventOpen, Self::IoUringSetup];
        let call = call.into_iter().find(|call| call.name() == name)?;
        (word == WORD && !program.is_empty()).then_some((call, program))
    }

    /// Becomes a program to which the kernel refuses this call.
    ///
    /// # Errors
    /// Always, as it only comes back if the filter cannot be set, or the program not be started.
    pub fn become_program(self, program: &[String]) -> Failure {
        let [program, args @ ..] = program else {
            return failure::io(Path::new("no program"), "become", io::ErrorKind::InvalidInput);
        };
        match self.refuse() {
            Ok(()) => {
                failure::io(Path::new(program), "become", Command::new(program).args(args).exec())
            }
            Err(error) => failure::io(Path::new(self.name()), "refuse", error),
        }
    }

    /// Has the kernel refuse this call to the calling thread from now on, and to what it becomes.
    fn refuse(self) -> io::Result<()> {
        // Without it only root may set a filter.
        set_no_new_privs(true)?;
        let number = u32::try_from(self.number()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let refused = libc::SECCOMP_RET_ERRNO | self.errno().unsigned_abs();
        // The number is the first word of what a filter sees. That a program of another architecture has other numbers
        // does not matter: it becomes one of ours.
        let mut filter = [
            step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
            step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number),
            step(libc::BPF_RET | libc::BPF_K, 0, 0, refused),
            step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
        let pointer = (&raw const program).cast::<libc::c_void>();
        let mode = libc::c_ulong::from(libc::SECCOMP_MODE_FILTER);
        // SAFETY: PR_SET_SECCOMP(2const): the second argument is an unsigned long; the third points to a sock_fprog, which
        // lives through the call as the filter does that it points to and whose length it has; the kernel copies both.
        let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, pointer) };
        if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the opcodes of BPF have 16 bits")]
const fn step(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

/// Whether this host can refuse system calls to a program.
#[must_use]
pub fn filters() -> Capability {
    match fs::read_to_string(ACTIONS) {
        Ok(actions) if actions.split_whitespace().any(|action| action == "errno") => {
            Capability::Available
        }
        Ok(actions) => impossible(format!("{ACTIONS} has no errno: {}", actions.trim())),
        Err(error) => impossible(format!("{ACTIONS}: {error}")),
    }
}

fn impossible(cause: String) -> Capability {
    let remedy = "boot a kernel with CONFIG_SECCOMP_FILTER; without one, run this command in a container or as a user who is refused the same, which replaces it";
    Capability::Impossible { cause, remedy: remedy.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_were_written_and_nothing_else_is() {
        let launcher = Launcher { program: "/bin/t".into(), args: vec!["chaos-helper".to_owned()] };
        for call in [Call::PerfEventOpen, Call::IoUringSetup] {
            let mut words = call.words(&launcher);
            words.extend(["/bin/x", "--store", "a b"].map(str::to_owned));
            assert_eq!(words[..3], ["/bin/t", "chaos-helper", "--"]);
            let (found, program) = Call::parse(&words[3..]).unwrap();
            assert_eq!((found, program.join(" ")), (call, "/bin/x --store a b".to_owned()));
        }
        for bad in ["refuse", "refuse io_uring_setup", "refuse openat /bin/x", "hog 1 7"] {
            let words: Vec<String> = bad.split(' ').map(str::to_owned).collect();
            assert_eq!(Call::parse(&words), None, "{bad}");
        }
    }
}
