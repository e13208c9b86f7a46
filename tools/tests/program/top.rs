//! `top` as text, and on a pseudo terminal: it draws, hears its keys, and leaves the terminal as it was.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::bench::{Bench, PROGRAM, text};

/// Enters and leaves the alternate screen (xterm).
const ENTER: &str = "\u{1b}[?1049h";
const LEAVE: &str = "\u{1b}[?1049l";

#[test]
fn pages_of_a_process_as_text() {
    let Some(bench) = Bench::new() else { return };
    let mut child =
        Command::new(&bench.burn).args(["idle", "60000"]).stdin(Stdio::null()).spawn().unwrap();
    let pid = child.id().to_string();
    let args = ["top", "--pid", &pid, "--count", "2", "--interval", "500ms"];
    let output = bench.tailbeam(&args).output().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let page = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(page.matches("tailbeam top  process").count(), 2, "{page}");
    for part in ["2 threads", "Threads", "burn", "idle", "cpu", "wait", "vol/s"] {
        assert!(page.contains(part), "{part} is not in\n{page}");
    }
    let refused = page.contains("unknown: samples");
    assert!(refused || page.contains("work") && page.contains("Functions"), "{page}");
    let rows = page.split_once("Threads").unwrap().1;
    let (burn, idle) = (rows.find(" burn ").unwrap(), rows.find(" idle ").unwrap());
    assert!(burn < idle, "the busiest first\n{page}");
}

#[test]
fn a_page_of_a_recorded_program_and_of_a_soak() {
    let Some(bench) = Bench::new() else { return };
    bench.record(&[], &["burn", "200"]);
    let page = text(&bench.tailbeam(&["top", "--once"]).output().unwrap().stdout);
    assert!(page.contains("ended") && page.contains("burn"), "{page}");
    let soak = [
        "soak",
        "--agents",
        "100",
        "--duration",
        "2s",
        "--think",
        "10ms..50ms",
        "--progress",
        "none",
    ];
    let ran = bench.tailbeam(&soak).output().unwrap();
    if ran.status.code() == Some(5) {
        return crate::bench::skip("this host cannot run a soak");
    }
    let output = bench.tailbeam(&["top", "@last", "--once"]).output().unwrap();
    let page = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for part in ["Cores, window", "busy", "parked", "turns/s", "req/s", "p99", "attempts/s", "open"]
    {
        assert!(page.contains(part), "{part} is not in\n{page}");
    }
    let none = bench.tailbeam(&["top", "no-such-run", "--once"]).output().unwrap();
    assert_eq!(none.status.code(), Some(1));
    assert!(text(&none.stderr).contains("no run named"), "{}", text(&none.stderr));
}

/// A program on a terminal of its own, and what it wrote so far.
struct OnTerminal {
    child: Child,
    terminal: File,
    /// The side of the program: its modes can be asked for after its end.
    slave: File,
    written: Receiver<Vec<u8>>,
    seen: String,
}

impl OnTerminal {
    fn start(args: &[&str]) -> Self {
        let master =
            rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY)
                .unwrap();
        rustix::pty::grantpt(&master).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let name = rustix::pty::ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let open = || File::options().read(true).write(true).open(&name).unwrap();
        let slave = open();
        tcsetwinsize(&slave, size(80, 24)).unwrap();
        let child = Command::new(PROGRAM)
            .args(args)
            .env("TERM", "xterm")
            .stdin(open())
            .stdout(open())
            .stderr(open())
            .spawn()
            .unwrap();
        let terminal = File::from(master);
        let mut reader = terminal.try_clone().unwrap();
        let (tell, written) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 65_536];
            while let Ok(length @ 1..) = reader.read(&mut bytes) {
                if tell.send(bytes[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, terminal, slave, written, seen: String::new() }
    }

    /// Reads until `part` has been written; what came up to then.
    fn until(&mut self, part: &str) {
        while !self.seen.contains(part) {
            let bytes = self.written.recv_timeout(Duration::from_secs(60));
            let bytes = bytes.unwrap_or_else(|_| panic!("{part:?} did not come:\n{}", self.seen));
            self.seen.push_str(&text(&bytes));
        }
    }

    fn raw(&self) -> bool {
        !tcgetattr(&self.slave).unwrap().local_modes.contains(LocalModes::ICANON)
    }

    /// Waits for its end; the terminal must be as it was.
    fn ends(mut self) -> std::process::ExitStatus {
        self.until(LEAVE);
        let status = self.child.wait().unwrap();
        assert!(!self.raw(), "lines are edited and echoed again");
        status
    }
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// The words of a screen, without what moves the cursor.
#[test]
fn it_draws_on_a_terminal_hears_its_keys_and_leaves_it_as_it_was() {
    let own = std::process::id().to_string();
    let start = |more: &[&str]| {
        let mut args = vec!["top", "--pid", &own, "--interval", "100ms"];
        args.extend(more);
        OnTerminal::start(&args)
    };
    let mut top = start(&[]);
    top.until(ENTER);
    top.until("q quit");
    top.until("Threads");
    assert!(top.raw(), "keys come at once");
    top.terminal.write_all(b"p").unwrap();
    top.until("PAUSED");
    top.terminal.write_all(b"p").unwrap();
    // Another size is drawn anew: the last line is now at row 10.
    tcsetwinsize(&top.slave, size(60, 10)).unwrap();
    kill_process(Pid::from_child(&top.child), Signal::WINCH).unwrap();
    top.until("\u{1b}[10;1H");
    top.terminal.write_all(b"q").unwrap();
    assert_eq!(top.ends().code(), Some(0));

    let mut top = start(&[]);
    top.until("q quit");
    kill_process(Pid::from_child(&top.child), Signal::TERM).unwrap();
    assert_eq!(top.ends().code(), Some(143));

    let mut top = start(&["--panic-at", "1"]);
    top.until("q quit");
    assert_eq!(top.ends().code(), Some(101), "a panic");
}
