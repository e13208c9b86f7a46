//! Rules of the tree that no lint knows. Each is a function over text, with a case that it must refuse.

use std::fs;
use std::path::{Path, PathBuf};

/// Files that may hold `unsafe`, and why.
const UNSAFE: [(&str, &str); 50] = [
    ("runtime/src/clock.rs", "clock_gettime"),
    ("runtime/src/channel/spsc.rs", "uninitialised cells shared by two threads"),
    ("runtime/src/channel/envelope.rs", "messages of any type in equal cells"),
    ("runtime/src/channel/queue.rs", "uninitialised cells read where they lie"),
    ("runtime/src/agent/hosted.rs", "states of agents of any type"),
    ("runtime/src/agent/lifecycle.rs", "states of agents of any type"),
    ("runtime/src/agent/moving.rs", "the state of an agent is moved out of its slot"),
    ("runtime/src/agent/parcel.rs", "a value of any type in place"),
    ("runtime/src/shard/shared.rs", "a reference that went through an atomic word"),
    ("runtime/src/shard/lane.rs", "words in mapped memory"),
    ("runtime/src/shard/slab.rs", "slots of any type in mapped memory"),
    ("runtime/src/shard/suspended.rs", "futures of any type in blocks"),
    ("runtime/src/ring/mod.rs", "io_uring submission, eventfd"),
    ("runtime/src/ring/bell.rs", "io_uring_register and membarrier by number"),
    ("runtime/src/ring/buffers.rs", "a ring of buffers shared with the kernel"),
    ("runtime/src/op/pool.rs", "receive buffers that change hands by number"),
    ("runtime/src/net/socket.rs", "socket, bind, listen, setsockopt, shutdown"),
    ("runtime/src/memory.rs", "mmap, munmap, madvise"),
    ("runtime/src/timer/table.rs", "plain values in mapped memory"),
    ("runtime/src/prefetch.rs", "the prefetch instruction"),
    ("runtime/src/shard/pin.rs", "sched_getaffinity"),
    ("runtime/src/shard/waker.rs", "RawWaker whose data is a number"),
    ("probes/src/clock/cycles.rs", "rdtsc, cntvct"),
    (
        "probes/src/collect/sys.rs",
        "getrusage; read and ioctl of descriptors that another crate owns",
    ),
    ("probes/tests/perf_alloc_free.rs", "GlobalAlloc that counts"),
    ("tests/qemu/src/work.rs", "a loop of exactly two instructions"),
    ("probes/src/collect/heap/global.rs", "GlobalAlloc"),
    ("probes/src/collect/heap/hook.rs", "fast paths in C, in one unit with mimalloc"),
    ("probes/src/collect/heap/plain.rs", "mimalloc is C"),
    ("probes/src/collect/heap/realloc.rs", "blocks that move between mimalloc and the range"),
    ("probes/src/collect/heap/shortage.rs", "a block that may be refused; operations done again"),
    ("probes/src/collect/heap/range.rs", "mmap, mprotect: the range of sampled blocks"),
    ("probes/src/collect/words.rs", "mmap: words of files and of private memory"),
    ("probes/src/collect/heap/modules.rs", "dl_iterate_phdr"),
    ("probes/src/collect/heap/threads.rs", "gettid, tgkill, pthread_atfork"),
    ("probes/src/collect/heap/unwind.rs", "reads its own stack by frame pointers"),
    ("probes/src/collect/heap/eh_frame.rs", "asks the loader, reads unwind tables and the stack"),
    ("probes/preload/src/hook.rs", "blocks of C programs are copied and cleared"),
    ("probes/preload/src/map.rs", "tables in mapped memory, found through atomic words"),
    ("probes/preload/src/real.rs", "the next malloc, called through dlsym's addresses"),
    ("probes/preload/src/start.rs", "constructor, fork handler, environment before main"),
    ("probes/preload/src/thread.rs", "a thread-local symbol, found by two instructions"),
    ("runtime/tests/alloc_free.rs", "GlobalAlloc that counts"),
    ("probes/tests/heap_forked.rs", "fork, waitpid"),
    ("probes/tests/heap_edges.rs", "a signal handler, a timer, a limit of addresses"),
    ("harness/tests/outside/mod.rs", "ptrace, sched_setscheduler, alarm"),
    ("harness/src/chaos/host/cut.rs", "ext4's shutdown ioctl"),
    ("harness/src/chaos/host/refuse.rs", "a filter of system calls"),
    ("tools/tests/seccomp.rs", "a filter between fork and exec"),
    ("tests/tidy.rs", "names the word in its own rules"),
];

/// Workspace crates that each member may name.
const EDGES: [(&str, &[&str]); 6] = [
    ("runtime", &[]),
    ("probes", &[]),
    ("probes/preload", &["tailbeam-probes"]),
    ("harness", &["tailbeam-runtime", "tailbeam-probes"]),
    ("tools", &["tailbeam-harness", "tailbeam-probes"]),
    ("tests", &["tailbeam", "tailbeam-harness", "tailbeam-probes", "tailbeam-runtime"]),
];

const LINES_MAX: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_owned()
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("readable").map(|entry| entry.expect("readable").path()) {
        let name = entry.file_name().expect("has one").to_string_lossy().into_owned();
        if entry.is_dir() && !name.starts_with("target") && !name.starts_with('.') {
            rust_files(&entry, found);
        } else if name.ends_with(".rs") {
            found.push(entry);
        }
    }
}

fn sources() -> Vec<(String, String)> {
    let root = root();
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    files
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(&root).expect("below the root").display().to_string();
            (name, fs::read_to_string(&path).expect("text"))
        })
        .collect()
}

fn edge(member: &str, manifest: &str) -> Result<(), String> {
    let allowed =
        EDGES.iter().find(|(name, _)| *name == member).map_or(&[][..], |(_, allowed)| allowed);
    for line in manifest.lines().filter(|line| line.starts_with("tailbeam")) {
        let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
        if !allowed.contains(&name) {
            return Err(format!("{member} must not depend on {name}"));
        }
    }
    Ok(())
}

fn length(name: &str, text: &str) -> Result<(), String> {
    let lines = text.lines().count();
    if lines > LINES_MAX {
        Err(format!("{name} has {lines} lines: split it by idea"))
    } else {
        Ok(())
    }
}

fn has_unsafe(text: &str) -> bool {
    let code = |line: &&str| !line.trim_start().starts_with("//");
    let uses = |line: &str| {
        ["unsafe {", "unsafe fn", "unsafe impl"].iter().any(|word| line.contains(word))
    };
    text.lines().filter(code).any(uses)
}

fn unsafe_listed(name: &str, text: &str) -> Result<(), String> {
    let listed = UNSAFE.iter().any(|(file, _)| *file == name);
    match (has_unsafe(text), listed) {
        (true, false) => Err(format!("{name} holds unsafe code and is not on the list")),
        (false, true) => Err(format!("{name} is on the list of unsafe files and holds none")),
        _ => Ok(()),
    }
}

fn time_is_an_argument(name: &str, text: &str) -> Result<(), String> {
    let asks = [
        "Instant::now(",
        "SystemTime::now(",
        "thread::sleep(",
        "clock_gettime(",
        "_rdtsc(",
        "cntvct_el0",
    ];
    // A benchmark of other runtimes has no clock of ours to ask.
    let peers = name.starts_with("tests/peers/") || name.starts_with("tests/heap-peers/");
    // The processor's counter is a clock too; its door is the one file of that folder that reads anything.
    let clock = name.ends_with("clock.rs") || name == "probes/src/clock/cycles.rs";
    let exempt = clock || name == "tests/tidy.rs" || peers;
    match asks.iter().find(|call| !exempt && text.contains(*call)) {
        Some(call) => Err(format!("{name} calls {call}..): time is an argument")),
        None => Ok(()),
    }
}

fn both_sides(name: &str, text: &str) -> Result<(), String> {
    // The controller joins the two, and so does what observes a core; reports and evidence read probes' types
    // only.
    let joins = [
        "harness/src/drive/",
        "harness/src/host.rs",
        "harness/src/load/",
        "harness/src/observe/",
        "harness/tests/",
        "tests/",
    ];
    let both = text.contains("tailbeam_runtime") && text.contains("tailbeam_probes");
    if both && !joins.iter().any(|prefix| name.starts_with(prefix)) {
        return Err(format!("{name} names both runtime and probes"));
    }
    Ok(())
}

/// Packages that `from` reaches in a Cargo.lock.
fn reaches(lock: &str, from: &str, wanted: &str) -> bool {
    let package = |name: &str| {
        lock.split("[[package]]")
            .find(|block| block.contains(&format!("name = \"{name}\"\n")))
            .map(str::to_owned)
    };
    let (mut waiting, mut seen) = (vec![from.to_owned()], Vec::new());
    while let Some(name) = waiting.pop() {
        if seen.contains(&name) {
            continue;
        }
        let block = package(&name).unwrap_or_default();
        let list = block
            .split_once("dependencies = [")
            .map_or("", |(_, rest)| rest.split(']').next().unwrap_or(""));
        let names =
            list.split('"').skip(1).step_by(2).map(|d| d.split(' ').next().unwrap_or(d).to_owned());
        waiting.extend(names);
        seen.push(name);
    }
    seen.iter().any(|name| name == wanted)
}

fn reasons(manifest: &str) -> Result<(), String> {
    let section = manifest.split_once("[workspace.dependencies]").map_or("", |(_, rest)| rest);
    let section = section.split("\n[").next().unwrap_or("");
    let mut explained = false;
    for line in section.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let own = line.starts_with("tailbeam");
        if line.starts_with('#') {
            explained = true;
        } else if !own && !explained {
            return Err(format!("no reason above {line}"));
        } else {
            explained = false;
        }
    }
    Ok(())
}

fn all(rule: impl Fn(&str, &str) -> Result<(), String>) {
    let broken: Vec<String> =
        sources().iter().filter_map(|(name, text)| rule(name, text).err()).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn dependencies_point_one_way() {
    for (member, _) in EDGES {
        let manifest = fs::read_to_string(root().join(member).join("Cargo.toml"))
            .expect("a member has a manifest");
        edge(member, &manifest).expect("an allowed edge");
    }
    assert_eq!(
        edge("tools", "tailbeam-runtime.workspace = true"),
        Err("tools must not depend on tailbeam-runtime".to_owned())
    );
}

#[test]
fn files_are_short() {
    all(length);
    assert!(length("x.rs", &"\n".repeat(LINES_MAX + 1)).is_err());
}

#[test]
fn unsafe_code_is_where_the_list_says() {
    all(unsafe_listed);
    assert!(unsafe_listed("x.rs", "unsafe { 1 }").is_err());
    assert!(unsafe_listed(UNSAFE[0].0, "safe").is_err());
}

#[test]
fn only_clocks_ask_for_the_time() {
    all(time_is_an_argument);
    assert!(time_is_an_argument("a/x.rs", "Instant::now()").is_err());
    assert!(time_is_an_argument("probes/src/clock/line.rs", "_rdtsc()").is_err());
}

#[test]
fn runtime_and_probes_meet_where_the_list_says() {
    all(both_sides);
    assert!(both_sides("tools/src/x.rs", "tailbeam_runtime tailbeam_probes").is_err());
}

#[test]
fn no_crate_of_ours_reaches_tokio() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("committed");
    for from in ["tailbeam-runtime", "tailbeam-probes", "tailbeam-harness", "tailbeam"] {
        assert!(!reaches(&lock, from, "tokio"), "{from} reaches tokio");
    }
    assert!(reaches(&lock, "tailbeam", "crc32c"), "the walk goes deep");
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("readable");
    reasons(&manifest).expect("a sentence each");
    assert!(reasons("[workspace.dependencies]\nfoo = \"1\"\n").is_err());
}
