//! The threads and functions of a process that runs, or of a program that is being recorded.

use std::fs;
use std::path::Path;

use tailbeam_harness::evidence::{Following, records::kind};
use tailbeam_probes::analyse::program::{Program, Sum, ThreadUse, cpu_profile};
use tailbeam_probes::collect::program::Watch;
use tailbeam_probes::record::program::{ProgramStart, What, from_bytes};

use super::{Cell, Grid, Page, Source};
use crate::Failure;
use crate::render::units::{count, time};

/// Functions are those of the last so many ns.
const FUNCTIONS_NS: u64 = 10_000_000_000;
/// New addresses are looked up this often: it reads the files' debug information.
const NAMES_NS: u64 = 5_000_000_000;
/// Threads that are shown.
const THREADS_MAX: usize = 200;

/// A program and the names of its stacks.
struct Live {
    program: Program,
    /// Innermost function of each stack.
    names: Vec<String>,
    named_ns: Option<u64>,
}

impl Live {
    fn new(start: ProgramStart) -> Self {
        Self { program: Program::new(start), names: Vec::new(), named_ns: None }
    }

    fn name(&mut self, now_ns: u64) {
        let due = self.named_ns.is_none_or(|last| now_ns >= last + NAMES_NS);
        if self.program.stack_count() <= self.names.len() || !due {
            return;
        }
        self.named_ns = Some(now_ns);
        let profile = cpu_profile(&self.program, &[], &|path| fs::read(path)).profile;
        let first = |stack| profile.names(stack).into_iter().next().unwrap_or_default();
        // The last stands for the stacks without room.
        let known = profile.stacks.len().saturating_sub(1);
        self.names = profile.stacks[..known].iter().map(first).collect();
    }

    fn page(&mut self, title: String, now_ns: u64) -> Page {
        let last = self.program.to_ns;
        self.program.forget(last.saturating_sub(FUNCTIONS_NS));
        self.name(now_ns);
        let window = self.program.windows.last().copied().unwrap_or_default();
        let length = window.to_ns.saturating_sub(window.from_ns).max(1);
        let alive = self.program.threads.iter().skip(1).filter(|t| t.ended_ns.is_none());
        let mut rows: Vec<Vec<Cell>> = alive.map(|thread| row(thread, length)).collect();
        let threads = rows.len();
        rows.sort_by(|a, b| b[2].value.unwrap_or(-1.0).total_cmp(&a[2].value.unwrap_or(-1.0)));
        rows.truncate(THREADS_MAX);
        let mut lines = vec![format!(
            "{threads} threads, cpu {}, waiting {}, {} switches/s, {} faults/s, window {}",
            share(&window.cpu, length),
            share(&window.wait, length),
            rate(&window.switches, length)
                .map_or_else(|| "unknown".to_owned(), |v| format!("{v:.0}")),
            rate(&window.faults, length)
                .map_or_else(|| "unknown".to_owned(), |v| format!("{v:.0}")),
            time(length as f64)
        )];
        lines.push(cores(&self.program));
        let header = vec!["thread", "id", "cpu", "wait", "vol/s", "invol/s", "faults/s", "samples"];
        let title_main = "Threads".to_owned();
        let main = Grid { title: title_main, header, left: 1, rows };
        let mut notes: Vec<String> = Vec::new();
        if threads > THREADS_MAX {
            notes.push(format!("{} threads more, with less CPU time", threads - THREADS_MAX));
        }
        if self.program.left_out > 0 {
            notes.push(format!("{} threads found no row", self.program.left_out));
        }
        for mode in &self.program.start.modes {
            let missing = mode.missing.iter().filter(|(_, why)| why.source != "switch records");
            notes.extend(
                missing
                    .map(|(what, why)| format!("unknown: {what}: {}; {}", why.cause, why.remedy)),
            );
        }
        Page { title, lines, main, second: self.functions(), notes }
    }

    fn functions(&self) -> Option<Grid> {
        (self.program.start.hz > 0).then(|| {
            let mut counts: std::collections::HashMap<&str, u64> = std::collections::HashMap::new();
            for sample in &self.program.samples {
                let name = self.names.get(sample.stack as usize);
                *counts.entry(name.map_or("(not looked up yet)", String::as_str)).or_default() += 1;
            }
            let all = self.program.samples.len().max(1) as f64;
            let mut rows: Vec<Vec<Cell>> = counts
                .into_iter()
                .map(|(name, samples)| {
                    let share = samples as f64 * 100.0 / all;
                    vec![
                        Cell::figure(Some(share), |share| format!("{share:.1} %")),
                        Cell::name(name),
                    ]
                })
                .collect();
            rows.sort_by(|a, b| {
                let by = b[0].value.unwrap_or(0.0).total_cmp(&a[0].value.unwrap_or(0.0));
                by.then_with(|| a[1].text.cmp(&b[1].text))
            });
            rows.truncate(20);
            Grid {
                title: format!(
                    "Functions, innermost, {} samples of the last 10 s",
                    count(self.program.samples.len() as u64)
                ),
                header: vec!["self", "function"],
                left: 0,
                rows,
            }
        })
    }
}

fn rate(sum: &Sum, length_ns: u64) -> Option<f64> {
    let known = sum.known().or((sum.unknown == 0).then_some(0))?;
    Some(known as f64 * 1e9 / length_ns as f64)
}

fn share(sum: &Sum, length_ns: u64) -> String {
    rate(sum, length_ns).map_or_else(|| "unknown".to_owned(), |rate| format!("{:.1} %", rate / 1e7))
}

fn row(thread: &ThreadUse, length_ns: u64) -> Vec<Cell> {
    let of = |what: What| rate(&thread.last[what.index()], length_ns);
    let percent = |rate: Option<f64>| Cell::figure(rate.map(|r| r / 1e7), |v| format!("{v:.1} %"));
    let number = |rate: Option<f64>| Cell::figure(rate, |v| format!("{v:.0}"));
    vec![
        Cell::name(thread.row.name.clone()),
        Cell { text: thread.row.thread.to_string(), value: Some(f64::from(thread.row.thread)) },
        percent(of(What::Cpu)),
        percent(of(What::Wait)),
        number(of(What::Voluntary)),
        number(of(What::Involuntary)),
        number(of(What::MinorFaults)),
        Cell { text: count(thread.samples), value: Some(thread.samples as f64) },
    ]
}

/// Busy and steal of each core in the last window.
fn cores(program: &Program) -> String {
    let parts = program.cores.iter().take(16).map(|core| {
        let [busy, idle, _, steal] = &core.last;
        let whole = (busy.sum + idle.sum + steal.sum).max(1) as f64;
        match (busy.known(), steal.known()) {
            (Some(busy), Some(steal)) => format!(
                "{}: {:.0} % busy {:.0} % steal",
                core.cpu,
                busy as f64 * 100.0 / whole,
                steal as f64 * 100.0 / whole
            ),
            _ => format!("{}: unknown", core.cpu),
        }
    });
    format!("cores  {}", parts.collect::<Vec<_>>().join("   "))
}

/// A process that runs.
pub(crate) struct Process {
    watch: Watch,
    live: Live,
}

impl Process {
    pub(crate) fn new(watch: Watch, start: ProgramStart) -> Self {
        Self { watch, live: Live::new(start) }
    }
}

impl Source for Process {
    fn page(&mut self, now_ns: u64) -> Result<Page, Failure> {
        let batch = self.watch.look(now_ns);
        self.live.program.tick(batch.tick);
        self.live.program.stacks(batch.stacks);
        self.live.program.samples(&batch.samples);
        let start = &self.live.program.start;
        let title = format!("tailbeam top  process {}  {}", start.process, start.command.join(" "));
        Ok(self.live.page(title, now_ns))
    }

    fn between(&mut self, now_ns: u64) {
        self.watch.drain(now_ns);
    }

    fn over(&self) -> bool {
        !self.watch.first_lives()
    }
}

/// A program that is being recorded, or was.
pub(crate) struct Recorded {
    run: String,
    following: Following,
    live: Live,
    over: bool,
}

impl Recorded {
    pub(crate) fn new(dir: &Path) -> Self {
        let run = dir.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        let live = Live::new(ProgramStart::default());
        Self { run, following: Following::from_start(dir), live, over: false }
    }
}

impl Source for Recorded {
    fn page(&mut self, now_ns: u64) -> Result<Page, Failure> {
        for frame in self.following.fresh()? {
            let (bytes, program) = (&*frame.payload, &mut self.live.program);
            match frame.kind {
                kind::PROGRAM_START => {
                    if let Some(start) = from_bytes(bytes) {
                        self.live = Live::new(start);
                    }
                }
                kind::PROGRAM_TICK => {
                    from_bytes(bytes).into_iter().for_each(|tick| program.tick(tick))
                }
                kind::PROGRAM_STACKS => {
                    from_bytes(bytes).into_iter().for_each(|stacks| program.stacks(stacks));
                }
                kind::PROGRAM_SAMPLES => {
                    from_bytes(bytes).into_iter().for_each(|samples| program.samples(&samples));
                }
                kind::PROGRAM_END => self.over = true,
                _ => {}
            }
        }
        let state = if self.over { "ended" } else { "recording" };
        let command = self.live.program.start.command.join(" ");
        let title = format!("tailbeam top  run {}  {state}  {command}", self.run);
        Ok(self.live.page(title, now_ns))
    }

    fn over(&self) -> bool {
        self.over
    }
}
