//! Process 1 of a guest whose counters are exact (QEMU, one instruction is one ns): runs the checks of
//! the case that the kernel's command line names, prints each, and powers the guest off.
//!
//! `judged: N held, M broken` is the last line, and `.ci/qemu` wants it with M = 0. Each child for another
//! user is this program again with the argument `matrix`.

mod checks;
mod matrix;
mod work;

use tailbeam_qemu::{Judge, case, mounted};

fn main() {
    if std::env::args().nth(1).as_deref() == Some("matrix") {
        return print!("{}", matrix::here());
    }
    mounted("proc", "/proc");
    mounted("sysfs", "/sys");
    let mut judge = Judge::default();
    match case().as_deref() {
        Some("pmu") => {
            checks::exact(&mut judge);
            checks::shared(&mut judge);
            checks::starved(&mut judge);
            checks::switches(&mut judge);
            matrix::levels(&mut judge);
        }
        Some("exact") => checks::exact(&mut judge),
        Some("no-pmu") => matrix::without_pmu(&mut judge),
        Some("no-instructions") => matrix::without_instructions(&mut judge),
        Some("two-cpus") => checks::two_cpus(&mut judge),
        other => judge.that("the command line names a case", false, &format!("{other:?}")),
    }
    judge.power_off();
}
