//! What a subject does, by its words. Each lives until it is killed, or a minute at most.

use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use io_uring::IoUring;
use perf_event2::Builder;
use perf_event2::events::Software;
use tailbeam_harness::chaos::host::MARK;
use tailbeam_probes::clock::monotonic_ns;

use crate::places::{PROGRAM, ROOT, pause_ms, text};

const LIFE_MS: u64 = 60_000;

pub(crate) fn run(words: &[&str]) {
    // Its first words are of where it is: nothing of it comes before.
    let group = text("/proc/self/cgroup");
    let until_ns = monotonic_ns() + LIFE_MS * 1_000_000;
    let lives = move || monotonic_ns() < until_ns;
    match *words {
        ["where", file] => {
            say(file, &group);
            pause_ms(LIFE_MS);
        }
        ["spin"] => {
            let other = std::thread::spawn(move || while lives() {});
            while lives() {}
            other.join().expect("it does not panic");
        }
        ["write", dir] => write(Path::new(dir), lives),
        ["cache", dir] => cache(Path::new(dir), lives),
        ["threads"] => {
            while lives() {
                // Refused beyond the limit.
                let more = std::thread::Builder::new().spawn(|| pause_ms(1));
                drop(more.map(std::thread::JoinHandle::join));
            }
        }
        // Each starts others for as long as it lives; a limit of processes is all that holds them.
        ["forks"] => {
            while lives() {
                drop(Command::new(PROGRAM).args(["subject", "forks"]).spawn());
            }
        }
        // A group of its own below the one that it is in, as one that runs containers has; what is there carries no mark,
        // and is not in its process group.
        ["nests"] => {
            let below = format!("{ROOT}/{}/below", group.trim_start_matches("0::/"));
            fs::create_dir(&below).expect("root may make it");
            let mut inner = Command::new(PROGRAM);
            inner.args(["subject", "idle"]).env_remove(MARK).process_group(0);
            let inner = inner.spawn().expect("this program again");
            fs::write(format!("{below}/cgroup.procs"), inner.id().to_string()).expect("it may");
            pause_ms(LIFE_MS);
        }
        ["calls", file] => {
            say(file, &format!("{}, {}", ring(), counter()));
            pause_ms(LIFE_MS);
        }
        _ => pause_ms(LIFE_MS),
    }
}

/// Written whole: who reads it sees all of it or nothing.
fn say(file: &str, text: &str) {
    let other = format!("{file}.new");
    fs::write(&other, text)
        .and_then(|()| fs::rename(&other, file))
        .expect("a folder of the checks");
}

fn ring() -> String {
    match IoUring::new(8) {
        Ok(_) => "ring".to_owned(),
        Err(error) => format!("no ring: {}", error.raw_os_error().unwrap_or(0)),
    }
}

fn counter() -> String {
    match Builder::new(Software::PAGE_FAULTS).observe_self().any_cpu().build() {
        Ok(_) => "counter".to_owned(),
        Err(error) => format!("no counter: {}", error.raw_os_error().unwrap_or(0)),
    }
}

/// Four megabytes, synced in pieces, again and again.
fn write(dir: &Path, lives: impl Fn() -> bool) {
    let path = dir.join("written");
    while lives() {
        let mut file = fs::File::create(&path).expect("the disk is mounted");
        for _ in 0..32 {
            file.write_all(&[7; 131_072]).and_then(|()| file.sync_data()).expect("it has room");
        }
    }
}

/// Fills the page cache of its group with a file of 32 MiB, which the kernel may take back.
fn cache(dir: &Path, lives: impl Fn() -> bool) {
    let path = dir.join("cached");
    let mut file = fs::File::create(&path).expect("the disk is mounted");
    for _ in 0..32 {
        file.write_all(&[1; 1 << 20]).expect("it has room");
    }
    file.sync_all().expect("it has room");
    while lives() {
        let mut file = fs::File::open(&path).expect("written above");
        std::io::copy(&mut file, &mut std::io::sink()).expect("it can be read");
    }
}
