//! System calls that the kernel refuses to one subject, and to no other.

use std::fs;

use tailbeam_harness::chaos::host::{Call, Capability, filters};
use tailbeam_qemu::Judge;

use crate::bench::Bench;
use crate::places::{launcher, subject, text, within};

pub(crate) fn all(judge: &mut Judge) {
    let able = filters();
    judge.that("filters can refuse a call", able == Capability::Available, &format!("{able:?}"));
    let mut bench = Bench::new("calls");
    let cases = [
        (None, "ring, counter"),
        (Some(Call::IoUringSetup), "no ring: 1, counter"),
        (Some(Call::PerfEventOpen), "ring, no counter: 13"),
    ];
    for (call, wanted) in cases {
        let name = call.map_or("nothing", Call::name);
        let file = format!("/tmp/calls/{name}");
        let mut run = subject(&["calls", &file]).inside(&bench.groups);
        run.refused = call.map(|call| (call, launcher()));
        let process = bench.start(&run).process();
        within(20_000, || fs::exists(&file).is_ok_and(|there| there));
        let said = text(&file);
        let inside = bench.groups.members().contains(&process.pid);
        judge.that(
            &format!("a subject in its group that is refused {name}"),
            said == wanted && inside,
            &said,
        );
    }
    bench.end(judge, "refused calls");
}
