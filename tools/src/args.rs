//! Flags to values; nothing else sees the flags.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rounded and bounded just before; Rust casts of floats saturate"
)]

mod export;
mod latency;
mod report;
mod runs;

use std::error::Error as _;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ErrorKind};
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use tailbeam_harness::load::AnyWorkload;
use tailbeam_harness::plan::{
    Kind, Plant, SlowPlant, Span, bytes as size, bytes_per_h as rate, parse_decoy, parse_plant,
    parse_slow,
};

use crate::certify_args::{CertifyArgs, VerifyArgs};
use crate::chaos_args::{ChaosArgs, GuardArgs, HelperArgs};
use crate::compare_args::{CompareArgs, ScaleArgs};
use crate::config::{self, Effective};
pub(crate) use crate::demo_args::DemoArgs;
use crate::presets;
pub(crate) use crate::record_args::{Record, TopArgs};
use crate::render::leaks::By;
use crate::soak_args::RESUMABLE;
pub(crate) use crate::soak_args::{Soak, SoakArgs};

pub(crate) use export::{ExportArgs, ExportFormat};
pub(crate) use latency::{CountersArgs, LatencyArgs, LatencyBy, LatencyFailOn};
pub(crate) use report::{ReportArgs, ReportFormat};
pub(crate) use runs::{FsckArgs, GcArgs, Runs, RunsCommand, TagArgs};

const EXIT_CODES: &str = "Exit codes: 0 GO or done, 1 could not run, 2 usage, 3 NO-GO, 4 INCONCLUSIVE, \
5 host not ready, 6 evidence damaged, 130 interrupted, 143 terminated";

/// Where does the tail come from, what leaks, may it ship?
#[derive(Debug, Parser)]
#[command(name = "tailbeam", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Directory of runs
    #[arg(long, global = true, env = "TAILBEAM_STORE", value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
    /// File of settings instead of ./tailbeam.toml
    #[arg(long, global = true, env = "TAILBEAM_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// What `config` shows: every flag that has a value before anything is typed.
    #[arg(skip)]
    pub(crate) settings: Vec<Effective>,
    /// Files that may hold settings, the weakest first.
    #[arg(skip)]
    pub(crate) files: Vec<PathBuf>,
    /// What was typed, the program first.
    #[arg(skip)]
    pub(crate) words: Vec<OsString>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// A minute that shows what it finds: a planted leak and a planted slow agent
    #[command(
        after_help = "Examples:\n  tailbeam demo\n  tailbeam demo --format json\n\nNeeds no privileges and no configuration. Exit code: 0 when both were found, 4 when not."
    )]
    Demo(DemoArgs),
    /// Load live agents with an open-loop schedule, record, judge
    #[command(
        after_help = "Examples:\n  tailbeam soak\n  tailbeam soak --agents 100k --duration 30s --gate 'delivery>=99.9%'\n  tailbeam soak --resume @last\n\nA run whose process was killed, or whose machine went down, is continued as a new epoch, for what is left of its\nplan; the report says how long nobody measured."
    )]
    Soak(Box<SoakArgs>),
    /// Attack secure elicitation on the live runtime, beside a load: what must be refused, is it?
    #[command(
        after_help = "Examples:\n  tailbeam attack\n  tailbeam attack --only replayed-answer,expiry-race --format json\n  tailbeam attack --preset compare --durability batch\n\nExit code: 0 everything was held, 3 something was not, 4 an attack could not be run."
    )]
    Attack(Box<AttackArgs>),
    /// Run any program, or watch one: CPU, waiting, switches, faults, a CPU profile, its heap
    #[command(
        after_help = "Examples:\n  tailbeam record -- ./server --port 80\n  tailbeam record --pid 4711 --duration 30s\n  tailbeam record --heap -- ./server --port 80\n  tailbeam record --heap --exact -- ./a.out\n\nA program's output and exit code are its own; 128 + N after signal N. One that cannot be recorded\nis not started: exit 1 with the cause. With --pid: 0 when the time is up or the process has ended,\n130 and 143 after SIGINT and SIGTERM; the run is whole in any case."
    )]
    Record(Box<Record>),
    /// Recompute a run's report from its frames, as a table, text, Markdown, JSON, or one HTML page
    #[command(
        after_help = "Examples:\n  tailbeam report @last\n  tailbeam report @last -o report.html\n  tailbeam report 20261124 --format json\n  tailbeam report RUN/certificate.dsse.json -o certificate.html"
    )]
    Report(ReportArgs),
    /// Which sites leak, whose objects, how fast, and how sure that is
    #[command(
        after_help = "Examples:\n  tailbeam leaks @last\n  tailbeam leaks @last --by agent\n  tailbeam leaks @last --view diff --base 20261124\n  tailbeam leaks ./run --fail-on leak\n  tailbeam leaks --plan 2MB/h\n\nWith --fail-on: exit 3 when it is so, 4 when that cannot be said yet, 0 when it is CLEAN."
    )]
    Leaks(Box<LeaksArgs>),
    /// Where the time of a run's requests went, and whether it adds up
    #[command(
        after_help = "Examples:\n  tailbeam latency @last\n  tailbeam latency @last --by stage\n  tailbeam latency @last --outliers 50\n  tailbeam latency @last --agent 17 --from 10s --to 20s\n  tailbeam latency @last --fail-on conservation\n\nWith --fail-on: exit 3 when it does not add up, 4 when that cannot be said, 0 when it does."
    )]
    Latency(LatencyArgs),
    /// What each core counted over time, with its quality
    #[command(
        after_help = "Examples:\n  tailbeam counters @last\n  tailbeam counters @last --core 1 --every 1s\n  tailbeam counters @last --per request --format json"
    )]
    Counters(CountersArgs),
    /// The heap or CPU profile of a run, or its latency over time, in another tool's format
    #[command(
        after_help = "Examples:\n  tailbeam export @last --to pprof -o heap.pb.gz && go tool pprof -top heap.pb.gz\n  tailbeam export @last --to folded | flamegraph.pl > heap.svg\n  tailbeam export @last --to firefox -o heap.json.gz    (open at profiler.firefox.com)\n  tailbeam export @last --to timeline --from 10s --until 20s -o latency.json.gz\n  tailbeam export @last --to hlog -o latency.hlog\n  tailbeam export @last --to csv --rows cores -o cores.csv"
    )]
    Export(ExportArgs),
    /// Live: the cores of a run, or the threads of a process
    #[command(
        after_help = "Examples:\n  tailbeam top\n  tailbeam top --pid 4711\n  tailbeam top @last --once\n\nKeys: q ends, p pauses, s or > and < choose the column to sort by."
    )]
    Top(TopArgs),
    /// Run two sides in randomised pairs of processes, and say which is better at what
    #[command(
        after_help = "Examples:\n  tailbeam compare elicitation wait_for_messages --agents 10000\n  tailbeam compare elicit ask --duration 20s --pairs 10\n  tailbeam compare --a-bin ./tailbeam.old --b-bin ./tailbeam.new\n  tailbeam compare 20261124-07,20261124-08 @last~1,@last\n  tailbeam compare --from @last --format md\n\nExit codes: 3 when B is worse in a metric, 4 when that cannot be said of one, 0 when B is nowhere worse."
    )]
    Compare(Box<CompareArgs>),
    /// Do harm to a loaded fleet, for real, and say how it took it
    #[command(
        after_help = "Examples:\n  tailbeam chaos --list\n  tailbeam chaos cpu_throttling\n  tailbeam chaos disk_io_stress/slow_sync --agents 1000\n  tailbeam chaos --all --dry-run\n  tailbeam chaos --all\n  tailbeam chaos --from @last --format md\n\nRoot can do most; `--list` says what this host and user can do. Whatever is done is written down before, and undone\nalso when this program is killed.\n\nExit codes: 3 when a scenario failed, 4 when that cannot be said of one, 0 when all passed."
    )]
    Chaos(Box<ChaosArgs>),
    /// Heals the host when `chaos` is gone
    #[command(hide = true)]
    ChaosGuard(GuardArgs),
    /// Takes something away for `chaos`
    #[command(hide = true)]
    ChaosHelper(HelperArgs),
    /// Hosts half of the responders of a run
    #[command(hide = true)]
    Second,
    /// Run fleets from 10 agents to a million: what they cost, where it bends, what limits
    #[command(
        after_help = "Examples:\n  tailbeam scale --to 1000000\n  tailbeam scale --to 100k --points 9 --duration 20s\n  tailbeam scale --from @last --format md\n\nExit codes: 0 when every fleet ran, 4 when one could not and is unknown."
    )]
    Scale(Box<ScaleArgs>),
    /// Judge recorded runs under a policy, and sign what came of it
    #[command(
        after_help = "Examples:\n  tailbeam certify --new-key me.pem\n  tailbeam certify @last --key me.pem\n  tailbeam certify SOAK --run compare=@last --policy lighthouse-sla --key me.pem --junit gates.xml\n\nA gate that was not measured, or on a run that is missing or too short, is INCONCLUSIVE and never a PASS."
    )]
    Certify(Box<CertifyArgs>),
    /// Check a certificate: its key, every file, and every figure anew from the frames
    #[command(
        after_help = "Examples:\n  tailbeam verify @last --key me.pem.pub\n\nExit code: the verdict's (0, 3, 4) if everything holds, or else 6."
    )]
    Verify(VerifyArgs),
    /// The named shapes of `soak --preset`, as the flags that they stand for
    Presets,
    /// The runs of a store: list, show, tag, pin, remove, check
    Runs(Runs),
    /// What this host lacks, why it matters, how to mend it
    Doctor(Doctor),
    /// Settings from files, the environment and defaults
    Config(ConfigArgs),
    /// Completions for a shell
    #[command(
        after_help = "Examples:\n  tailbeam completions bash > /etc/bash_completion.d/tailbeam\n  tailbeam completions zsh > ~/.zfunc/_tailbeam\n  tailbeam completions fish > ~/.config/fish/completions/tailbeam.fish"
    )]
    Completions {
        /// Shell
        shell: clap_complete::Shell,
    },
    /// Man pages, one for each command
    #[command(after_help = "Examples:\n  tailbeam man man1 && man -l man1/tailbeam.1")]
    Man {
        /// Directory to write them to
        dir: PathBuf,
    },
}

/// Flags of `attack`: those of the load beside it, and which attacks.
#[derive(Debug, Args)]
pub(crate) struct AttackArgs {
    /// Attacks to run; all when not given
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// How old a request may be: some attacks wait until it is older
    #[arg(long, default_value = "2s", value_name = "TIME", value_parser = duration)]
    pub(crate) fresh: u64,
    #[command(flatten)]
    pub(crate) load: Soak,
}

/// How a result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// One JSON document
    Json,
}

/// How progress is shown on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressMode {
    /// A bar on a terminal, lines elsewhere
    Auto,
    /// A bar
    Bar,
    /// Lines
    Plain,
    /// Nothing
    None,
}

/// How frames get their names.
#[derive(Debug, Args)]
pub(crate) struct SymbolArgs {
    /// Directory with the files that ran, or their debug files; searched first
    #[arg(long, value_name = "DIR")]
    pub(crate) symbols: Vec<PathBuf>,
    /// Show the frames of allocators and of the language's library, too
    #[arg(long)]
    pub(crate) all_frames: bool,
    /// Process, where a run has several
    #[arg(long)]
    pub(crate) pid: Option<u32>,
}

/// How a leak report is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LeaksView {
    /// The verdict and each leak
    List,
    /// What lives, by call tree
    Tree,
    /// What lives, in rows
    Table,
    /// Every object in exact mode, age by size otherwise
    Objects,
    /// What changed since --base
    Diff,
}

/// What rows are summed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LeaksBy {
    /// Stack that allocated
    Site,
    /// Owner that was tagged
    Agent,
    /// Core of birth
    Core,
    /// Size class
    Size,
}

impl From<LeaksBy> for By {
    fn from(by: LeaksBy) -> Self {
        match by {
            LeaksBy::Site => Self::Site,
            LeaksBy::Agent => Self::Agent,
            LeaksBy::Core => Self::Core,
            LeaksBy::Size => Self::Size,
        }
    }
}

/// What makes the exit code 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FailOn {
    /// A LEAK
    Leak,
    /// A LEAK or a SUSPECT
    Suspect,
}

#[derive(Debug, Args)]
pub(crate) struct LeaksArgs {
    /// Id, unique prefix, @last, @last~N, a directory with heap.tbh, or RUN@2h
    #[arg(required_unless_present_any = ["schema", "plan"])]
    pub(crate) run: Option<String>,
    /// How it is drawn; list, or table with --by, or diff with --base
    #[arg(long, value_enum)]
    pub(crate) view: Option<LeaksView>,
    /// What lives, summed by this
    #[arg(long, value_enum)]
    pub(crate) by: Option<LeaksBy>,
    /// Run, or RUN@2h, to compare with
    #[arg(long, value_name = "RUN")]
    pub(crate) base: Option<String>,
    /// Exit with 3 when there is one, with 4 when that cannot be said
    #[arg(long, value_enum, value_name = "VERDICT")]
    pub(crate) fail_on: Option<FailOn>,
    /// Growth that the gate allows; half of it is the floor of a LEAK [default: 2MB/h]
    #[arg(long, value_parser = rate, value_name = "RATE")]
    pub(crate) limit: Option<f64>,
    /// The program may fill its structures this long [default: that of the run's plan, else 30m]
    #[arg(long, value_parser = duration)]
    pub(crate) warm_up: Option<u64>,
    /// A backlog may last this long [default: that of the run's plan, else 30m]
    #[arg(long, value_parser = duration)]
    pub(crate) horizon: Option<u64>,
    /// Agents that the program has
    #[arg(long, value_parser = count)]
    pub(crate) agents: Option<u64>,
    /// Rows of a table
    #[arg(long, default_value_t = 20)]
    pub(crate) top: usize,
    /// Calls of a stack below a leak
    #[arg(long, default_value_t = 8)]
    pub(crate) calls: usize,
    /// Say how long a soak must be to find a leak of this rate, and stop; with RUN as it was sampled
    #[arg(long, value_parser = rate, value_name = "RATE")]
    pub(crate) plan: Option<f64>,
    /// Mean distance between samples of the plan [default: 16KiB to 512KiB]
    #[arg(long, value_parser = size, value_name = "SIZE", requires = "plan")]
    pub(crate) mean: Option<f64>,
    /// Churn at the leaking site of the plan
    #[arg(long, value_parser = size, value_name = "SIZE", default_value = "20MB", requires = "plan")]
    pub(crate) churn: f64,
    /// Lifetime of that churn
    #[arg(long, value_parser = duration, default_value = "60s", requires = "plan")]
    pub(crate) churn_life: u64,
    #[command(flatten)]
    pub(crate) how: SymbolArgs,
    /// Format
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,
    /// Print the JSON Schema of `--format json` and stop
    #[arg(long)]
    pub(crate) schema: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Every flag that has a value before anything is typed
    #[command(
        after_help = "Examples:\n  tailbeam config show --origin\n  tailbeam --config ci.toml config show --format json\n\nA flag wins over the environment, that over ./tailbeam.toml or --config FILE, that over\n$XDG_CONFIG_HOME/tailbeam/config.toml, that over /etc/tailbeam/config.toml."
    )]
    Show {
        /// Say where each value is from
        #[arg(long)]
        origin: bool,
        /// Format
        #[arg(long, value_enum, default_value = "table")]
        format: Format,
    },
    /// The files that may hold settings, the strongest last, and which of them are there
    Path,
    /// Look whether the files can be used
    Check,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Exit with 5 when a check fails
    #[arg(long)]
    pub(crate) strict: bool,
    /// Format
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,
}

/// A list of cores; `None` is auto.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CoreList(pub(crate) Option<Vec<usize>>);

/// All flags; the workloads are named in soak's help.
pub(crate) fn command(workloads: &[&'static dyn AnyWorkload]) -> clap::Command {
    let list: Vec<String> =
        workloads.iter().map(|w| format!("  {}  {}", w.name(), w.about())).collect();
    let help = match list.is_empty() {
        true => EXIT_CODES.to_owned(),
        false => format!("Workloads:\n{}\n\n{EXIT_CODES}", list.join("\n")),
    };
    // A preset's flags come first on the line, and those beside it go before them.
    let soak = |soak: clap::Command| {
        let others = soak.get_arguments().map(|arg| arg.get_id().clone());
        let others: Vec<_> = others.filter(|id| !RESUMABLE.contains(&id.as_str())).collect();
        soak.after_long_help(help)
            .args_override_self(true)
            .mut_arg("resume", |arg| arg.conflicts_with_all(others))
    };
    let attack = |attack: clap::Command| {
        attack.args_override_self(true).mut_arg("agents", |arg| arg.default_value("1k"))
    };
    Cli::command().mut_subcommand("soak", soak).mut_subcommand("attack", attack)
}

/// Why a command line is no command.
#[derive(Debug)]
pub(crate) enum Unparsed {
    /// clap's answer; help and version are results.
    Flags(clap::Error),
    /// A file of settings cannot be used.
    Config(String),
}

impl From<clap::Error> for Unparsed {
    fn from(error: clap::Error) -> Self {
        Self::Flags(error)
    }
}

/// Parses a command line; what it does not say, files of settings may.
pub(crate) fn parse(
    args: impl IntoIterator<Item = OsString>,
    workloads: &[&'static dyn AnyWorkload],
) -> Result<Cli, Unparsed> {
    let args: Vec<OsString> = args.into_iter().collect();
    let command = command(workloads);
    let files = config::files(&args);
    let settings = config::read(&files, config::named(&args).as_deref(), &command);
    let settings = settings.map_err(Unparsed::Config)?;
    let command = config::apply(command, &settings);
    let words = args.clone();
    let args = presets::expand(args, &command)
        .map_err(|text| clap::Error::raw(ErrorKind::Io, format!("{text}\n")))?;
    let mut cli = Cli::from_arg_matches(&command.clone().try_get_matches_from(args)?)?;
    cli.words = words;
    if let Command::Config(_) = cli.command {
        cli.settings = config::effective(&command, &settings);
        cli.files = files;
    }
    Ok(cli)
}

/// What a person reads who typed something that cannot be.
pub(crate) fn usage(error: &clap::Error) -> String {
    let context = |kind| error.get(kind).map(ToString::to_string);
    let (flag, value) = (context(ContextKind::InvalidArg), context(ContextKind::InvalidValue));
    match (error.kind(), flag, value, error.source()) {
        (ErrorKind::ValueValidation, Some(flag), Some(value), Some(cause)) => format!(
            "error: {flag} cannot be {value:?}\n  cause: {cause}\n  remedy: `--help` shows what each flag takes and its default\n"
        ),
        _ => error.to_string(),
    }
}

pub(crate) fn count(text: &str) -> Result<u64, String> {
    let digits = text.replace('_', "").to_ascii_lowercase();
    let (digits, scale) = match digits.as_bytes().last() {
        Some(b'k') => (&digits[..digits.len() - 1], 1_000),
        Some(b'm') => (&digits[..digits.len() - 1], 1_000_000),
        _ => (digits.as_str(), 1),
    };
    let number: u64 =
        digits.parse().map_err(|_| "write a count such as 10000, 10_000, 10k or 1m".to_owned())?;
    number.checked_mul(scale).ok_or_else(|| "the count is too large".to_owned())
}

pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(unit);
    let scale: u64 = match unit {
        "" | "B" => 1,
        "KiB" | "k" | "K" => 1 << 10,
        "MiB" | "m" | "M" => 1 << 20,
        "GiB" | "g" | "G" => 1 << 30,
        _ => return Err("write bytes such as 65536, 64KiB or 1MiB".to_owned()),
    };
    let value: u64 = digits.trim().parse().map_err(|_| format!("{digits:?} is not a number"))?;
    // Above a TiB no program ever reaches a sample.
    match value.checked_mul(scale) {
        Some(size @ 1..=0x100_0000_0000) => Ok(size),
        _ => Err("a size lies between 1 byte and 1 TiB".to_owned()),
    }
}

pub(crate) fn duration(text: &str) -> Result<u64, String> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(unit);
    let scale = match unit {
        "us" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" | "min" => 60e9,
        "h" => 3_600e9,
        _ => return Err("write a duration with a unit, such as 300ms, 60s, 30m or 2h".to_owned()),
    };
    let value: f64 = digits.trim().parse().map_err(|_| format!("{digits:?} is not a number"))?;
    if !value.is_finite() || value < 0.0 || value * scale > 1e18 {
        return Err("a duration lies between 0 and 30 years".to_owned());
    }
    Ok((value * scale).round() as u64)
}

/// An age: a duration, or days.
pub(crate) fn age(text: &str) -> Result<u64, String> {
    match text.strip_suffix('d') {
        Some(days) => duration(&format!(
            "{}h",
            days.parse::<f64>().map_err(|_| "write an age such as 30d or 12h")? * 24.0
        )),
        None => duration(text).map_err(|_| "write an age such as 30d or 12h".to_owned()),
    }
}

/// What clap prints is one line; the whole error names cause and remedy.
pub(crate) fn plant(text: &str) -> Result<Plant, String> {
    parse_plant(text).map_err(|error| error.to_string())
}

pub(crate) fn slow(text: &str) -> Result<SlowPlant, String> {
    parse_slow(text).map_err(|error| error.to_string())
}

pub(crate) fn decoy(text: &str) -> Result<Plant, String> {
    parse_decoy(text).map_err(|error| error.to_string())
}

/// A mean distance between samples in bytes; off is 0.
pub(crate) fn sample_bytes(text: &str) -> Result<u32, String> {
    if text == "off" {
        return Ok(0);
    }
    let bytes = size(text)?.round();
    if (1.0..=f64::from(1u32 << 31)).contains(&bytes) {
        Ok(bytes as u32)
    } else {
        Err(format!("{text} is not between 1B and 2GiB, and not off"))
    }
}

pub(crate) fn span(text: &str) -> Result<Span, String> {
    let (min, max) = text.split_once("..").unwrap_or((text, text));
    Ok(Span { min_ns: duration(min)?, max_ns: duration(max)? })
}

/// What `--kinds` takes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Kinds(pub(crate) Vec<Kind>);

pub(crate) fn kinds(text: &str) -> Result<Kinds, String> {
    let one = |part: &str| {
        let (share, delay) = part.trim().split_once(':').ok_or_else(|| {
            format!("{part:?} is no share and delay: write 70%:30ms, and a comma between two")
        })?;
        Ok::<_, String>(Kind { share: crate::protocol_args::share(share)?, delay: span(delay)? })
    };
    text.split(',').map(one).collect::<Result<Vec<_>, _>>().map(Kinds)
}

pub(crate) fn cores(text: &str) -> Result<CoreList, String> {
    if text == "auto" {
        return Ok(CoreList(None));
    }
    let number = |part: &str| {
        part.trim()
            .parse::<usize>()
            .map_err(|_| format!("{part:?} is not a core: write auto or 0,2-5"))
    };
    let mut list = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last || last - first > 4_096 {
            return Err(format!("{part:?} is not a range of cores"));
        }
        list.extend(first..=last);
    }
    Ok(CoreList(Some(list)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_people_type() {
        assert_eq!(
            [count("10_000"), count("10k"), count("1m")].map(Result::unwrap),
            [10_000, 10_000, 1_000_000]
        );
        assert!(
            count("many").is_err() && count("99999999999999999m").is_err() && count("-1").is_err()
        );
        assert_eq!(duration("1.5s"), Ok(1_500_000_000));
        assert!(duration("60").is_err() && duration("-1s").is_err() && duration("1e300h").is_err());
        assert_eq!(
            [bytes("64KiB"), bytes("1"), bytes("1MiB")].map(Result::unwrap),
            [65_536, 1, 1 << 20]
        );
        assert!(bytes("0").is_err() && bytes("64kb").is_err() && bytes("99999999GiB").is_err());
        assert_eq!([rate("2MB/h"), rate("1.5 MiB/h")], [Ok(2e6), Ok(1_572_864.0)]);
        assert!(["2MB", "2/h", "-1MB/h", "xMB/h", "2mb/h"].iter().all(|text| rate(text).is_err()));
        assert_eq!(span("1s..5s"), Ok(Span::ms(1_000, 5_000)));
        assert_eq!(cores("0,2-4"), Ok(CoreList(Some(vec![0, 2, 3, 4]))));
        assert!(cores("3-1").is_err() && cores("a").is_err());
    }
}
