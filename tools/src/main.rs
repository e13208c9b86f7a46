//! The `tailbeam` binary.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use tailbeam_probes::collect::heap::TailbeamAlloc;

#[global_allocator]
static ALLOCATOR: TailbeamAlloc = TailbeamAlloc;

fn main() -> ExitCode {
    tailbeam::run_with(tailbeam::workloads![
        tailbeam::Elicit,
        tailbeam::Ask,
        tailbeam::Secure,
        tailbeam::Poll
    ])
}
