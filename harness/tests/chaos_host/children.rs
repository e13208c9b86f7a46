//! Other processes of these tests: each is this binary again, as one ignored test, with words behind its name.

use std::io::Write as _;
use std::net::UdpSocket;
use std::path::Path;

use tailbeam_harness::chaos::host::helper::Helper;
use tailbeam_harness::chaos::host::run_guard;
use tailbeam_probes::clock::monotonic_ns;

use crate::support::pause_ms;

/// Longest life of a subject, ms.
const LIFE_MS: u64 = 30_000;

fn words(name: &str) -> Vec<String> {
    std::env::args().skip_while(|arg| arg != name).skip(1).collect()
}

#[test]
#[ignore = "a process of other tests"]
fn helper_child() {
    let Some(helper) = Helper::parse(&words("children::helper_child")) else { return };
    helper.run().unwrap();
}

#[test]
#[ignore = "a process of other tests"]
fn guard_child() {
    let [journal] = &words("children::guard_child")[..] else { return };
    let undone = run_guard(Path::new(journal), std::io::stdin(), std::io::stdout());
    // Its stderr is nobody's: what it says goes beside the journal.
    std::fs::write(format!("{journal}.undone"), format!("{undone:#?}")).unwrap();
    assert!(undone.unwrap().clean());
}

#[test]
#[ignore = "a process of other tests"]
fn subject_child() {
    let words = words("children::subject_child");
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let until_ns = monotonic_ns() + LIFE_MS * 1_000_000;
    let lives = move || monotonic_ns() < until_ns;
    match words[..] {
        ["spin"] => {
            let other = std::thread::spawn(move || while lives() {});
            while lives() {}
            other.join().unwrap();
        }
        ["write", dir] => write(Path::new(dir), lives),
        ["cache", dir] => cache(Path::new(dir), lives),
        ["send", to] => {
            let socket = UdpSocket::bind("198.18.0.1:0").unwrap();
            while lives() {
                // Refused while the link is down, which is what the test is about.
                drop(socket.send_to(&[1], to));
                pause_ms(1);
            }
        }
        ["threads"] => {
            while lives() {
                // Refused beyond the limit.
                let more = std::thread::Builder::new().spawn(|| pause_ms(1));
                drop(more.map(std::thread::JoinHandle::join));
            }
        }
        ["files"] => {
            let mut open = Vec::new();
            while lives() {
                match std::fs::File::open("/dev/null") {
                    Ok(file) if open.len() < 500 => open.push(file),
                    Ok(_) => open.clear(),
                    Err(_) => open.clear(),
                }
            }
        }
        ["clock", file] => {
            std::fs::write(file, monotonic_ns().to_string()).unwrap();
            pause_ms(LIFE_MS);
        }
        _ => pause_ms(LIFE_MS),
    }
}

fn write(dir: &Path, lives: impl Fn() -> bool) {
    let path = dir.join("written");
    while lives() {
        // A disk that is full, cut or being mounted again refuses: then once more.
        let once = || {
            let mut file = std::fs::File::create(&path)?;
            for _ in 0..16 {
                file.write_all(&[7; 262_144])?;
                file.sync_data()?;
            }
            std::io::Result::Ok(())
        };
        if once().is_err() {
            pause_ms(1);
        }
    }
}

/// Fills the page cache of its group with a file of 64 MB, which the kernel may take back.
fn cache(dir: &Path, lives: impl Fn() -> bool) {
    let path = dir.join("cached");
    let mut file = std::fs::File::create(&path).unwrap();
    for _ in 0..64 {
        file.write_all(&[1; 1 << 20]).unwrap();
    }
    while lives() {
        let mut file = std::fs::File::open(&path).unwrap();
        std::io::copy(&mut file, &mut std::io::sink()).unwrap();
    }
}
