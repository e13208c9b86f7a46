//! `top`: the cores of a run while it is written, or the threads of a process.

use std::fs;
use std::io::{self, IsTerminal as _, Write};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tailbeam_harness::evidence::{Store, is_program};
use tailbeam_probes::clock;
use tailbeam_probes::collect::program::{Watch, WatchOptions};
use tailbeam_probes::record::program::ProgramStart;

use super::Outcome;
use crate::Failure;
use crate::args::TopArgs;
use crate::top::process::{Process, Recorded};
use crate::top::soak::Soak;
use crate::top::{Source, plain, screen};

/// Between two drains of a process' rings, ns.
const DRAIN_NS: u64 = 100_000_000;

pub(super) fn run(args: &TopArgs, root: &Path, out: &mut dyn Write) -> Outcome {
    let mut source = source(args, root)?;
    let frames = if args.once { Some(1) } else { args.count };
    if frames.is_none() && io::stdout().is_terminal() {
        let signal = screen::run(&mut *source, args.interval, args.panic_at)?;
        return Ok(u8::try_from(if signal == 0 { 0 } else { 128 + signal }).unwrap_or(1));
    }
    pages(&mut *source, args, frames, out)
}

fn source(args: &TopArgs, root: &Path) -> Result<Box<dyn Source>, Failure> {
    if let Some(process) = args.pid {
        return Ok(Box::new(attach(process)?));
    }
    let name = args.run.as_deref().unwrap_or("@last");
    let given = Path::new(name);
    let dir = match given.join("seg").is_dir() {
        true => given.to_owned(),
        false => Store::open_existing(root)
            .and_then(|store| store.resolve(name))
            .map_err(|error| Failure::new(1, error))?,
    };
    let program = is_program(&dir);
    Ok(if program { Box::new(Recorded::new(&dir)) } else { Box::new(Soak::new(&dir)) })
}

fn attach(process: u32) -> Result<Process, Failure> {
    let options = WatchOptions::default();
    let start_ns = clock::monotonic_ns();
    let watch =
        Watch::attach(process, options).map_err(|error| super::record::refused(process, &error))?;
    let command = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    let words = command.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    let start = ProgramStart {
        started_unix_ns: clock::realtime_ns(),
        start_ns,
        process,
        attached: true,
        command: words.map(|word| String::from_utf8_lossy(word).into_owned()).collect(),
        hz: options.tree.hz,
        cpus: watch.cpus(),
        modes: watch.modes(),
    };
    Ok(Process::new(watch, start))
}

/// Pages as text: so many, or until nothing comes any more.
fn pages(
    source: &mut dyn Source,
    args: &TopArgs,
    frames: Option<u64>,
    out: &mut dyn Write,
) -> Outcome {
    let failed = |error| {
        Failure::new(1, format!("cannot watch signals\n  cause: {error}\n  remedy: none known"))
    };
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
    let (tell, told) = channel();
    let pass = move || {
        for signal in signals.forever() {
            // Nobody listens when the last page is written.
            let _ = tell.send(signal);
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(pass).map_err(failed)?;
    // A process has no window before the first interval has passed; a run has one on disk.
    let first = if args.pid.is_some() { args.interval } else { 0 };
    if first > 0 {
        source.page(clock::monotonic_ns())?;
    }
    let mut next_ns = clock::monotonic_ns() + first;
    let mut written = 0;
    loop {
        let now_ns = clock::monotonic_ns();
        if now_ns >= next_ns {
            let mut page = source.page(now_ns)?;
            if args.pid.is_some() {
                page.main.sort(2);
            }
            plain::write(&page, out)?;
            out.flush()?;
            written += 1;
            next_ns = now_ns + args.interval;
            if frames.is_some_and(|frames| written >= frames) || source.over() {
                return Ok(0);
            }
        }
        source.between(now_ns);
        let wait = next_ns.saturating_sub(clock::monotonic_ns()).min(DRAIN_NS);
        match told.recv_timeout(Duration::from_nanos(wait)) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(SIGINT) => return Ok(130),
            Ok(_) | Err(RecvTimeoutError::Disconnected) => return Ok(143),
        }
    }
}
