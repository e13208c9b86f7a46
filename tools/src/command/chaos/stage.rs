//! A subject on its stage: its board, its groups, its logs; started, stopped, killed, started again.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::Signal;
use tailbeam_harness::chaos::board::{Board, Cell, Knob, LevelSpan, Shape};
use tailbeam_harness::chaos::corrupt::Planted;
use tailbeam_harness::chaos::host::{Call, Groups, Host, Journal, Process, Run, Subject};
use tailbeam_harness::chaos::record::{ChaosPlan, Check};
use tailbeam_harness::chaos::recovery::Axis;
use tailbeam_harness::drive::Control;
use tailbeam_harness::log::LogKey;
use tailbeam_harness::protocol::elicitation::RunSecret;
use tailbeam_harness::remote::HomeConfig;
use tailbeam_probes::clock;

use super::checks::Opened;
use super::peer::Peer;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(20);
/// How long a subject may take to have its agents and its first request, beside 20 us per agent.
const START_NS: u64 = 60_000_000_000;
/// How long it may take to drain, seal and report, beside its timeout.
const END_NS: u64 = 90_000_000_000;
/// How long it may go on when one of its cores has ended: it looks at them each second, on a host that may be busy.
const LOSE_NS: u64 = 10 * SECOND;
const SECOND: u64 = 1_000_000_000;
/// Bytes kept of what a subject prints.
const OUTPUT_MAX: u64 = 16 << 20;

/// What stays the same in a series.
pub(super) struct Setting<'a> {
    pub(super) plan: &'a ChaosPlan,
    pub(super) host: &'a Host,
    pub(super) control: &'a Control,
    /// This program.
    pub(super) program: PathBuf,
    /// Directory of the series.
    pub(super) dir: &'a Path,
    /// Store of the subjects' runs.
    pub(super) store: PathBuf,
    /// A subject's second process, but for its secret and its address.
    pub(super) home: HomeConfig,
    /// Whether a subject tells an asker of an end only when its log has it, as its plan says.
    pub(super) acknowledges: bool,
}

impl Setting<'_> {
    /// Waits; gives `false` when the series is to be stopped.
    pub(super) fn wait(&self, ns: u64) -> bool {
        let until_ns = clock::monotonic_ns().saturating_add(ns);
        loop {
            let left_ns = until_ns.saturating_sub(clock::monotonic_ns());
            if self.stopped() || left_ns == 0 {
                return !self.stopped();
            }
            thread::park_timeout(LOOK.min(Duration::from_nanos(left_ns)));
        }
    }

    pub(super) fn stopped(&self) -> bool {
        self.control.stop.load(Ordering::Relaxed)
    }
}

/// A running subject.
struct Running {
    subject: Subject,
    out: JoinHandle<String>,
    err: JoinHandle<String>,
}

/// How a subject ended.
pub(super) struct Ended {
    /// What it printed.
    pub(super) out: String,
    pub(super) err: String,
}

/// A stage.
pub(super) struct Stage<'a> {
    pub(super) setting: &'a Setting<'a>,
    pub(super) board: Board,
    pub(super) axis: Axis,
    pub(super) groups: Groups,
    /// Where its logs lie.
    pub(super) home: PathBuf,
    /// What the process had open when it served, before any fault was done to it.
    pub(super) opened: Option<Opened>,
    /// What it said to hold before any fault.
    pub(super) held: Option<LevelSpan>,
    /// Whether descriptors and threads were left in the processes that ended, and in which they were looked for.
    pub(super) left: Vec<Check>,
    /// What the kernel refuses to those that are started.
    pub(super) refused: Option<Call>,
    /// Events of its logs that were damaged on the disk, and the core of each log.
    pub(super) flipped: Vec<(u32, Planted)>,
    /// Answers among them.
    pub(super) answers_flipped: u64,
    running: Option<Running>,
    /// Its second process, where it has one.
    pub(super) peer: Option<Peer>,
    /// Slots before this one do not change any more.
    settled: usize,
}

impl<'a> Stage<'a> {
    /// An empty one, for a subject that lives so long.
    pub(super) fn new(
        setting: &'a Setting<'a>,
        groups: Groups,
        home: PathBuf,
        length_ns: u64,
    ) -> Result<Self, String> {
        let plan = setting.plan;
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let shape = Shape {
            cores: u32::try_from(cores).map_err(|_| "too many cores")?,
            slots: u32::try_from(length_ns / plan.slot_ns + 1)
                .map_err(|_| "it would last too long")?,
            slot_ns: plan.slot_ns,
            from_ns: clock::monotonic_ns(),
        };
        let board = Board::create(shape, &secret()?)
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::InvalidInput => format!(
                    "{} slots of {cores} cores are more than a board of 4 GiB holds; fewer --injections, a shorter --patience",
                    shape.slots
                ),
                _ => format!("no shared memory for the board: {error}"),
            })?;
        if let Some(defence) = plan.broken {
            board.set(Knob::DefencesOff, defence as u64);
        }
        let expected = plan.rate_per_s * plan.slot_ns as f64 / 1e9;
        let axis = Axis { cells: Vec::new(), slot_ns: plan.slot_ns, expected };
        Ok(Self {
            setting,
            board,
            axis,
            groups,
            home,
            opened: None,
            held: None,
            left: Vec::new(),
            refused: None,
            flipped: Vec::new(),
            answers_flipped: 0,
            running: None,
            peer: None,
            settled: 0,
        })
    }

    /// Starts the second process, before the subject: at the end of a cable or beside it, and with a proxy in its way or not.
    pub(super) fn start_peer(
        &mut self,
        journal: &mut Journal,
        apart: bool,
        by_proxy: bool,
    ) -> Result<(), String> {
        let home = HomeConfig { secret: self.board.secret(), ..self.setting.home.clone() };
        let setting = self.setting;
        let place = (setting.host, &self.groups);
        let mut peer = Peer::start(&setting.program, place, journal, (&home, apart))?;
        if by_proxy {
            let s = u64::from(self.board.shape().slots) * setting.plan.slot_ns / 1_000_000_000;
            peer.by_proxy(setting.host, &self.board, journal, (s + 600) * 1_000)?;
        }
        self.peer = Some(peer);
        Ok(())
    }

    /// Starts the subject, or another one that goes on with its run, and waits until requests are due.
    /// `offset_s`: how far its monotonic clock is ahead.
    pub(super) fn start(
        &mut self,
        journal: &mut Journal,
        resume: bool,
        offset_s: Option<i64>,
    ) -> Result<(), String> {
        let begun = self.board.begun().1;
        for core in 0..self.board.shape().cores {
            self.board.set_restored(core, 0, 0);
            self.board.set_damage(core, &[]);
        }
        self.running = Some(self.launch(journal, resume, offset_s)?);
        self.wait_for_requests(begun)
    }

    /// Starts it, and waits for nothing.
    fn launch(
        &self,
        journal: &mut Journal,
        resume: bool,
        offset_s: Option<i64>,
    ) -> Result<Running, String> {
        let text = |path: &Path| path.display().to_string();
        let setting = self.setting;
        let mut args = vec!["--store".to_owned(), text(&setting.store), "soak".to_owned()];
        if resume {
            args.extend(["--resume", "@last"].map(str::to_owned));
        } else {
            args.extend(setting.plan.flags.iter().cloned());
            if self.peer.is_some() {
                args.extend(["--responders", "tcp"].map(str::to_owned));
            }
            let s = u64::from(self.board.shape().slots) * setting.plan.slot_ns / 1_000_000_000;
            args.extend(["--duration".to_owned(), format!("{s}s")]);
        }
        args.extend(["--board".to_owned(), text(&self.board.path())]);
        args.extend(["--log-home".to_owned(), text(&self.home)]);
        if let Some(peer) = &self.peer {
            let addresses: Vec<String> = peer.addresses.iter().map(ToString::to_string).collect();
            args.extend(["--second".to_owned(), addresses.join(",")]);
        }
        args.extend(["--progress", "none", "--format", "json"].map(str::to_owned));
        let words: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut run = Run::new(&setting.program, &words).inside(&self.groups);
        run.offset_s = offset_s;
        run.namespace = self.peer.as_ref().and_then(|peer| peer.near()).map(str::to_owned);
        run.refused = self.refused.map(|call| (call, setting.host.launcher.clone()));
        let pipes = |command: &mut Command| {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        };
        let mut subject =
            Subject::start(journal, &run, pipes).map_err(|error| error.to_string())?;
        let child = subject.child();
        let (out, err) = (reader(child.stdout.take()), reader(child.stderr.take()));
        Ok(Running { subject, out, err })
    }

    /// Starts another one that is to go on and cannot, because the kernel refuses it something: how it ended, and what it
    /// said. One that goes on all the same, or does not end, is killed.
    pub(super) fn attempt(&self, journal: &mut Journal) -> Result<(ExitStatus, Ended), String> {
        let Running { mut subject, out, err } = self.launch(journal, true, None)?;
        let ended = subject.ends_within(START_NS / 1_000_000);
        let status = match ended.map_err(|error| error.to_string())? {
            Some(status) => status,
            None => subject.kill().map_err(|error| error.to_string())?,
        };
        let text = |from: JoinHandle<String>| from.join().unwrap_or_default();
        Ok((status, Ended { out: text(out), err: text(err) }))
    }

    fn wait_for_requests(&mut self, begun: u64) -> Result<(), String> {
        let until_ns = clock::monotonic_ns() + START_NS + self.setting.plan.agents * 20_000;
        // The one before it may have had some in this slot.
        let from = self.slot_now();
        let had = self.board.read(from).due;
        loop {
            if self.board.begun().1 > begun {
                let now = self.slot_now();
                let due = |slot| self.board.read(slot).due;
                if due(from) > had || (from + 1..=now).any(|slot| due(slot) > 0) {
                    return Ok(());
                }
            }
            if let Some(ended) = self.ended() {
                return Err(said(&ended));
            }
            if clock::monotonic_ns() > until_ns || !self.setting.wait(50_000_000) {
                return Err("no request was due in its time".to_owned());
            }
        }
    }

    /// The process, while it lives.
    pub(super) fn process(&self) -> Option<Process> {
        self.running.as_ref().map(|running| running.subject.process())
    }

    /// Whether it runs: one that has ended and was not waited for holds nothing, and does not say so.
    pub(super) fn lives(&mut self) -> bool {
        self.running.as_mut().is_some_and(|of| matches!(of.subject.ends_within(0), Ok(None)))
    }

    /// What it said, when it has ended.
    pub(super) fn ended(&mut self) -> Option<Ended> {
        let running = self.running.as_mut()?;
        let over = running.subject.ends_within(0).ok()?.is_some();
        if over { self.take() } else { None }
    }

    fn take(&mut self) -> Option<Ended> {
        let Running { out, err, .. } = self.running.take()?;
        let text = |from: JoinHandle<String>| from.join().unwrap_or_default();
        Some(Ended { out: text(out), err: text(err) })
    }

    /// Kills it.
    pub(super) fn kill(&mut self) -> Result<String, String> {
        let running = self.running.as_mut().ok_or("it had ended before")?;
        let status = running.subject.kill().map_err(|error| error.to_string())?;
        self.take();
        Ok(status.to_string())
    }

    /// Has the thread of one of its cores panic: it is to say which, and to end by itself. Whether it did, in words and as
    /// a check; one that goes on without the core is killed.
    pub(super) fn lose_core(&mut self, core: u32) -> Result<(String, Check), String> {
        let running = self.running.as_mut().ok_or("it had ended before")?;
        self.board.set(Knob::CoreEnds, u64::from(core) + 1);
        let ended = running.subject.ends_within(LOSE_NS / 1_000_000);
        self.board.set(Knob::CoreEnds, 0);
        let name = "a process that loses a core says which, and ends";
        let Some(status) = ended.map_err(|error| error.to_string())? else {
            let text = format!("it went on without core {core} for {} s", LOSE_NS / SECOND);
            return Ok((self.kill()?, Check::seen(name, false, text)));
        };
        let said = self.take().map(|ended| ended.err).unwrap_or_default();
        let named = format!("error: core {core} ");
        let named = said.lines().find(|line| line.starts_with(&named));
        let text =
            named.map_or_else(|| format!("{status}, and core {core} is not named"), str::to_owned);
        let holds = named.is_some() && status.code() == Some(1);
        Ok((status.to_string(), Check::seen(name, holds, text)))
    }

    /// Has it drain, seal and report: what came of it, and what it said.
    pub(super) fn stop(&mut self) -> Result<(ExitStatus, Ended), String> {
        let running = self.running.as_mut().ok_or("it had ended before")?;
        running.subject.process().signal(Signal::INT).map_err(|error| error.to_string())?;
        let until_ns = clock::monotonic_ns() + END_NS;
        while clock::monotonic_ns() < until_ns {
            let running = self.running.as_mut().ok_or("it had ended before")?;
            let status = running.subject.ends_within(100).map_err(|error| error.to_string())?;
            if let Some(status) = status {
                let ended = self.take().ok_or_else(|| "it had ended before".to_owned())?;
                return Ok((status, ended));
            }
        }
        self.kill()?;
        Err(format!("it did not end within {} s of SIGINT, and was killed", END_NS / 1_000_000_000))
    }

    /// Now, from the begin of the axis, ns.
    pub(super) fn now_ns(&self) -> u64 {
        clock::monotonic_ns().saturating_sub(self.board.shape().from_ns)
    }

    fn slot_now(&self) -> u32 {
        let slot = self.now_ns() / self.setting.plan.slot_ns;
        u32::try_from(slot).unwrap_or(u32::MAX).min(self.board.shape().slots - 1)
    }

    /// Reads what the cores have counted, up to now. What was due longer ago than `settled_ns` is read no more.
    pub(super) fn read(&mut self, settled_ns: u64) {
        let now = self.slot_now() as usize;
        self.axis.cells.resize(now + 1, Cell::default());
        for slot in self.settled..=now {
            self.axis.cells[slot] = self.board.read(u32::try_from(slot).unwrap_or(u32::MAX));
        }
        let settled = self.now_ns().saturating_sub(settled_ns) / self.setting.plan.slot_ns;
        self.settled = usize::try_from(settled).unwrap_or(0).max(self.settled).min(now);
    }

    /// Reads every slot again.
    pub(super) fn read_all(&mut self) {
        self.settled = 0;
        self.read(0);
    }

    /// What its logs are checked with.
    pub(super) fn log_key(&self) -> LogKey {
        LogKey(RunSecret::new(self.board.secret()).log_key())
    }

    /// Directories of its logs, where they are to be: of cores that keep one, or that have said what is durable in it.
    pub(super) fn logs(&self) -> Vec<(u32, PathBuf)> {
        let cores = 0..self.board.shape().cores;
        let dirs = cores.map(|core| (core, self.home.join(format!("owner-{core}"))));
        dirs.filter(|(core, dir)| dir.is_dir() || self.board.durable(*core) > 0).collect()
    }
}

/// What a subject that ended on its own gave as its reason.
pub(super) fn said(ended: &Ended) -> String {
    let lines: Vec<&str> =
        ended.err.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let first = lines.iter().position(|line| line.starts_with("error: ")).unwrap_or(0);
    let text =
        lines[first.min(lines.len())..].iter().take(3).copied().collect::<Vec<_>>().join("; ");
    if text.is_empty() { "it ended and said nothing".to_owned() } else { text }
}

fn secret() -> Result<[u8; 32], String> {
    let mut secret = [0; 32];
    let mut source = std::fs::File::open("/dev/urandom").map_err(|error| error.to_string())?;
    source.read_exact(&mut secret).map_err(|error| error.to_string())?;
    Ok(secret)
}

/// Reads a pipe to its end beside the subject, so that neither waits for the other.
pub(super) fn reader(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            // What could be read is what there is; a broken pipe ends it.
            let _ = pipe.take(OUTPUT_MAX).read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
