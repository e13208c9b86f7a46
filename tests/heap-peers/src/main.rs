//! One command: the cost of each heap profiler over its own allocator, and over plain mimalloc.
//!
//! Every run is a process of its own, pinned; a round runs all variants in the order A B .. B A. A
//! ratio is taken within a round, over the sum of its two runs; the cell is the median of the rounds
//! with the distribution-free 95 % interval of the median.
//!
//! Where code lies changes a program by more than a sampler costs: two binaries that differ in nothing
//! else were 4 % apart. `--layouts N` links every program N times, with its functions in an order of
//! their own (`--shuffle-sections` of rust-lld), and takes another order in every round; so the interval
//! is one over layouts too. Without it, it is one of this binary only.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

struct Variant {
    name: &'static str,
    /// Program beside this one.
    program: &'static str,
    argument: &'static str,
    environment: &'static [(&'static str, &'static str)],
    /// Command in front of the program.
    wrapper: &'static [&'static str],
    /// Name of the variant that the cost is told over.
    base: &'static str,
    /// Runs a fiftieth of the work, in every tenth round, with its base.
    slow: bool,
}

const fn variant(name: &'static str, program: &'static str, base: &'static str) -> Variant {
    Variant { name, program, base, argument: "0", environment: &[], wrapper: &[], slow: false }
}

const TCMALLOC: &str = "/usr/lib/x86_64-linux-gnu/libtcmalloc.so.4";

fn variants() -> Vec<Variant> {
    let jemalloc =
        |name, environment| Variant { environment, ..variant(name, "jemalloc", "jemalloc") };
    let slow = |name, program, base, wrapper| Variant {
        wrapper,
        slow: true,
        ..variant(name, program, base)
    };
    vec![
        variant("mimalloc", "mimalloc", "mimalloc"),
        variant("tailbeam, counting", "tailbeam", "mimalloc"),
        Variant { argument: "524288", ..variant("tailbeam, 512 KiB", "tailbeam", "mimalloc") },
        Variant { argument: "65536", ..variant("tailbeam, 64 KiB", "tailbeam", "mimalloc") },
        variant("jemalloc", "jemalloc", "jemalloc"),
        jemalloc("jemalloc prof, 2^19", &[("_RJEM_MALLOC_CONF", "prof:true,lg_prof_sample:19")]),
        jemalloc("jemalloc prof, 2^17", &[("_RJEM_MALLOC_CONF", "prof:true,lg_prof_sample:17")]),
        Variant {
            environment: &[("LD_PRELOAD", TCMALLOC)],
            ..variant("tcmalloc (gperftools)", "system", "tcmalloc (gperftools)")
        },
        Variant {
            environment: &[("LD_PRELOAD", TCMALLOC), ("TCMALLOC_SAMPLE_PARAMETER", "524288")],
            ..variant("tcmalloc sampled, 512 KiB", "system", "tcmalloc (gperftools)")
        },
        slow("glibc, small", "system", "glibc, small", &[]),
        slow("mimalloc, small", "mimalloc", "mimalloc, small", &[]),
        Variant { argument: "1", ..slow("tailbeam exact", "tailbeam", "mimalloc, small", &[]) },
        slow("dhat-rs", "dhat", "glibc, small", &[]),
        slow("heaptrack", "system", "glibc, small", &["heaptrack", "-o", "/tmp/heap-peers-track"]),
        slow(
            "valgrind massif",
            "system",
            "glibc, small",
            &["valgrind", "--tool=massif", "--massif-out-file=/dev/null", "-q"],
        ),
    ]
}

struct Plan {
    rounds: usize,
    core: String,
    dir: PathBuf,
    only: Vec<String>,
    /// Layouts of every program that take turns; 0: the one that cargo links.
    layouts: usize,
    /// Divides the work of a run: more rounds in the same time.
    part: usize,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| {
        args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1)).cloned()
    };
    let programs = option("--program").unwrap_or_else(|| "json,churn".to_owned());
    let plan = Plan {
        rounds: option("--rounds").and_then(|n| n.parse().ok()).unwrap_or(30),
        core: option("--core").unwrap_or_else(|| "1".to_owned()),
        dir: std::env::current_exe()
            .ok()
            .and_then(|exe| exe.parent().map(Path::to_owned))
            .unwrap_or_default(),
        only: option("--only")
            .map(|o| o.split(';').map(str::to_owned).collect())
            .unwrap_or_default(),
        layouts: option("--layouts").and_then(|n| n.parse().ok()).unwrap_or(0),
        part: option("--part").and_then(|n| n.parse().ok()).unwrap_or(1).max(1),
    };
    // With --linked they are those of an earlier call.
    let linked = args.iter().any(|arg| arg == "--linked");
    if plan.layouts > 0 && !linked && !link_layouts(&plan) {
        eprintln!("cannot link the layouts: `cargo rustc` failed, or the linker is not rust-lld");
        return ExitCode::FAILURE;
    }
    for program in programs.split(',') {
        table(&plan, program);
    }
    ExitCode::SUCCESS
}

fn kept(plan: &Plan) -> Vec<Variant> {
    let only = |v: &Variant| plan.only.iter().any(|only| v.name.contains(only.as_str()));
    variants().into_iter().filter(|v| plan.only.is_empty() || only(v)).collect()
}

/// Where a program of a layout lies; layouts count from 1.
fn path(plan: &Plan, program: &str, layout: usize) -> PathBuf {
    match layout {
        0 => plan.dir.join(program),
        _ => plan.dir.join("layouts").join(format!("{program}-{layout}")),
    }
}

fn link_layouts(plan: &Plan) -> bool {
    let mut programs: Vec<&str> = kept(plan).iter().map(|v| v.program).collect();
    programs.sort_unstable();
    programs.dedup();
    if std::fs::create_dir_all(plan.dir.join("layouts")).is_err() {
        return false;
    }
    let order = |program: &str, layout: usize, line: &str| {
        let out = path(plan, program, layout);
        let line = format!("{line} -Wl,--shuffle-sections=.text*={layout} -o '{}'", out.display());
        Command::new("sh").args(["-c", &line]).status().is_ok_and(|status| status.success())
    };
    programs.iter().all(|program| {
        link_line(plan, program)
            .is_some_and(|line| (1..=plan.layouts).all(|layout| order(program, layout, &line)))
    })
}

/// The linker's command line for a program, whose objects are kept: it is compiled once for all layouts.
fn link_line(plan: &Plan, program: &str) -> Option<String> {
    let cargo = Command::new("cargo")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["rustc", "--quiet", "--release", "--locked", "--bin", program, "--"])
        .args(["-C", "save-temps", "--print", "link-args"])
        .output()
        .ok()?;
    // Cargo does not repeat what the compiler printed when nothing has changed.
    let kept = plan.dir.join("layouts").join(format!("{program}.link"));
    let text = String::from_utf8(cargo.stdout).ok()?;
    if let Some(line) = text.lines().find(|line| line.contains(" \"-o\" ")) {
        std::fs::write(&kept, line).ok()?;
    }
    cargo.status.success().then(|| std::fs::read_to_string(&kept).ok()).flatten()
}

/// CPU time of a run, ns; `None` when the tool is not there or fails.
fn run(plan: &Plan, program: &str, variant: &Variant, round: usize) -> Option<f64> {
    let full = if program == "json" { 12_000 } else { 30_000_000 };
    let size = if variant.slow { full / 50 } else { full / plan.part };
    let layout = if plan.layouts == 0 { 0 } else { round % plan.layouts + 1 };
    let path = path(plan, variant.program, layout);
    let mut command = match variant.wrapper {
        [] => Command::new(&path),
        [tool, rest @ ..] => {
            let mut command = Command::new(tool);
            command.args(rest).arg(&path);
            command
        }
    };
    command.args([program, &size.to_string(), &plan.core, variant.argument]);
    command.envs(variant.environment.iter().copied()).stderr(Stdio::null());
    let text = String::from_utf8(command.output().ok()?.stdout).ok()?;
    let line = text
        .lines()
        .find(|line| line.split(' ').filter(|w| w.parse::<u64>().is_ok()).count() == 3)?;
    line.split(' ').next()?.parse().ok()
}

fn table(plan: &Plan, program: &str) {
    let variants = kept(plan);
    let mut sums: Vec<Vec<Option<f64>>> = variants.iter().map(|_| Vec::new()).collect();
    for round in 0..plan.rounds {
        let due = |v: &Variant| !v.slow || round % 10 == 0;
        let order = (0..variants.len()).chain((0..variants.len()).rev());
        let mut times = vec![Some(0.0); variants.len()];
        for at in order.filter(|&at| due(&variants[at])) {
            let time = run(plan, program, &variants[at], round);
            times[at] = times[at].zip(time).map(|(sum, time)| sum + time);
        }
        for (at, time) in times.into_iter().enumerate() {
            sums[at].push(if due(&variants[at]) { time } else { None });
        }
    }
    println!("\n{program}: CPU time, {} rounds, {} layouts", plan.rounds, plan.layouts.max(1));
    println!("| variant | ms | over its own allocator | over plain mimalloc |");
    println!("|---|---|---|---|");
    for (at, variant) in variants.iter().enumerate() {
        let over = |base: &str| {
            let base = variants.iter().position(|v| v.name == base)?;
            let pairs = sums[at].iter().zip(&sums[base]);
            let ratios: Vec<f64> = pairs.filter_map(|(a, b)| Some((*a)? / (*b)?)).collect();
            interval(ratios)
        };
        let cell = |cell: Option<(f64, f64, f64)>| {
            cell.map_or("-".to_owned(), |(low, middle, high)| {
                format!(
                    "{:+.2} % [{:+.2}, {:+.2}]",
                    (middle - 1.0) * 100.0,
                    (low - 1.0) * 100.0,
                    (high - 1.0) * 100.0
                )
            })
        };
        let times: Vec<f64> = sums[at].iter().flatten().map(|sum| sum / 2e6).collect();
        let ms =
            interval(times).map_or("not available".to_owned(), |(_, ms, _)| format!("{ms:.1}"));
        let plain = if variant.slow { "mimalloc, small" } else { "mimalloc" };
        println!(
            "| {} | {ms} | {} | {} |",
            variant.name,
            cell(over(variant.base)),
            cell(over(plain))
        );
    }
}

/// Median and its 95 % interval by order statistics (binomial with 1/2; the normal approximation of
/// its quantile is good from six values on, below that the extremes stand).
fn interval(mut values: Vec<f64>) -> Option<(f64, f64, f64)> {
    values.sort_by(f64::total_cmp);
    let count = values.len();
    if count == 0 {
        return None;
    }
    let reach = 0.98 * (count as f64).sqrt();
    let low = ((count as f64 / 2.0 - reach).floor().max(0.0)) as usize;
    let high = (count - 1 - low).max(low);
    let middle = (values[(count - 1) / 2] + values[count / 2]) / 2.0;
    Some((values[low], middle, values[high]))
}
