#![expect(clippy::unwrap_used, reason = "a test reports by panicking")]
#![expect(clippy::print_stdout, reason = "what this host refuses is said")]
//! "Off" is off: what was closed leaves no descriptor and no mapping, and a leak is noticed.
//! One test, as it looks at the whole process.

use perf_event2::events::Software;
use perf_event2::{Builder, SampleFlag};
use tailbeam_probes::collect::perf::{
    CpuGroup, CpuOptions, SwitchRing, ThreadGroup, ThreadOptions, left_open,
};

#[test]
fn nothing_is_left_of_what_was_closed_and_a_forgotten_mapping_is_seen() {
    assert!(left_open().unwrap().nothing());
    let group = ThreadGroup::open(ThreadOptions::default());
    let ring = SwitchRing::open(8_192);
    let cpu = CpuGroup::open(0, CpuOptions::default());
    no_child_inherits();
    let left = left_open().unwrap();
    // The group's leader and its task-clock at least; a ring is one descriptor and one mapping.
    let groups = usize::from(group.is_ok()) + usize::from(cpu.is_ok());
    assert!(left.descriptors >= 2 * groups + usize::from(ring.is_ok()), "{left:?}");
    assert_eq!(left.mappings, usize::from(ring.is_ok()), "{left:?}");
    if let Err(why) = &ring {
        return println!("SKIPPED the ring: {why}");
    }
    drop((group, ring, cpu));
    assert!(left_open().unwrap().nothing(), "{:?}", left_open());

    // The mutation: the descriptor is closed and the mapping stays.
    let mut builder = Builder::new(Software::DUMMY);
    builder.exclude_kernel(true).context_switch(true).sample_id_all(true).sample(SampleFlag::TIME);
    let mut counter = builder.build().unwrap();
    let forgotten = memmap2::MmapOptions::new().len(3 * 4_096).map_raw(&counter).unwrap();
    counter.enable().unwrap();
    drop(counter);
    let left = left_open().unwrap();
    assert_eq!((left.descriptors, left.mappings), (0, 1));
    assert!(!left.nothing());
    drop(forgotten);
    assert!(left_open().unwrap().nothing());
}

/// perf-event opens its descriptors for children too; an event that one holds is not off.
fn no_child_inherits() {
    let listed = std::process::Command::new("ls").args(["-l", "/proc/self/fd"]).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains("->") && !listed.contains("perf_event"), "{listed}");
}
