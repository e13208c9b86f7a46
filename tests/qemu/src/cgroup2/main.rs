//! Process 1 of a guest whose control groups are one unified hierarchy: drives `chaos::host` of tailbeam-harness
//! there, prints each claim, and powers the guest off.
//!
//! Each other process is this program again, by its first word: a helper, a guard, a supervisor, a subject.
//! `judged: N held, M broken` is the last line, and `.ci/qemu` wants it with M = 0; in the case `cgroup2-lazy` no guard
//! undoes anything, and it wants M above 0.

mod bench;
mod disk;
mod faults;
mod groups;
mod killed;
mod places;
mod refused;
mod subject;

use std::path::Path;

use tailbeam_harness::chaos::host::helper::Helper;
use tailbeam_harness::chaos::host::{Call, run_guard};
use tailbeam_qemu::{Judge, case, mounted};

use crate::killed::Watch;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let texts: Vec<&str> = words.iter().map(String::as_str).collect();
    match texts[..] {
        ["helper", ..] => helper(&words[1..]),
        ["guard", journal] => {
            let undone = run_guard(Path::new(journal), std::io::stdin(), std::io::stdout());
            let undone = undone.expect("the journal can be read");
            assert!(undone.clean(), "{undone}");
        }
        ["lazy-guard", _] => killed::lazy_guard(),
        ["supervisor", fault, dir, journal, guard] => {
            killed::supervisor(fault, dir, journal, guard)
        }
        ["subject", ..] => subject::run(&texts[1..]),
        _ => first(),
    }
}

fn helper(words: &[String]) {
    if let Some((call, program)) =
        Call::parse(words.strip_prefix(&["--".to_owned()]).unwrap_or_default())
    {
        panic!("{}", call.become_program(program));
    }
    Helper::parse(words).expect("words of a helper").run().expect("it lives its life");
}

/// Process 1 itself.
fn first() {
    // Before it reads anything: the kernel gave it a console and no more.
    mounted("proc", "/proc");
    mounted("sysfs", "/sys");
    mounted("devtmpfs", "/dev");
    mounted("tmpfs", "/tmp");
    mounted("tmpfs", "/run");
    mounted("cgroup2", "/sys/fs/cgroup");
    mounted("tracefs", "/sys/kernel/tracing");
    let mut judge = Judge::default();
    match case().as_deref() {
        Some("cgroup2") => {
            disk::made(&mut judge);
            groups::all(&mut judge);
            faults::all(&mut judge);
            refused::all(&mut judge);
            killed::all(&mut judge, Watch::Undoes);
            killed::all(&mut judge, Watch::DoesNothing);
        }
        Some("cgroup2-lazy") => {
            disk::made(&mut judge);
            killed::as_if_it_undid(&mut judge);
        }
        other => judge.that("the command line names a case", false, &format!("{other:?}")),
    }
    judge.power_off();
}
