//! Commands as a user types them; each run has a store of its own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tailbeam::{AgentInfo, Cx, ReplyTo, Span, Workload, workloads};

/// Answers at the planned instant, or what the case wants instead.
struct Case<const LATE_MS: u64, const DROP_IN: u64>(Vec<Option<ReplyTo<Self>>>, u64);

impl<const LATE_MS: u64, const DROP_IN: u64> Workload for Case<LATE_MS, DROP_IN> {
    const NAME: &'static str = match (LATE_MS, DROP_IN) {
        (0, 0) => "prompt",
        (0, _) => "dropper",
        _ => "late",
    };
    const ABOUT: &'static str = "a planted case";
    const DELAY: Span = Span::ms(10, 20);
    type Request = ();
    type Reply = ();

    fn new(info: AgentInfo) -> Self {
        // Agents start at different counts, so that the drops are spread over the whole run.
        Self(Vec::new(), u64::from(info.index))
    }

    fn request(&mut self, _: u64) {}

    async fn serve(&mut self, (): (), reply: ReplyTo<Self>, cx: &mut Cx<'_>) {
        self.1 += 1;
        if DROP_IN > 0 && self.1.is_multiple_of(DROP_IN) {
            return;
        }
        let due = reply.due_ns() + LATE_MS * 1_000_000;
        self.0.push(Some(reply));
        cx.notify_at(due, self.0.len() as u64 - 1).unwrap();
    }

    fn on_timer(&mut self, token: u64, cx: &mut Cx<'_>) {
        let index = usize::try_from(token).unwrap();
        if let Some(reply) = self.0[index].take() {
            reply.send(cx, ());
        }
    }
}

/// Blocks its core for a second, once, without using it.
struct Blocker(u32, u64);

impl Workload for Blocker {
    const NAME: &'static str = "blocker";
    const ABOUT: &'static str = "a planted case";
    type Request = ();
    type Reply = ();

    fn new(info: AgentInfo) -> Self {
        Self(info.index, 0)
    }

    fn request(&mut self, _: u64) {}

    async fn serve(&mut self, (): (), reply: ReplyTo<Self>, cx: &mut Cx<'_>) {
        self.1 += 1;
        let until = cx.fresh_ns() + 1_000_000_000;
        while (self.0, self.1) == (0, 3) && cx.fresh_ns() < until {
            std::thread::park_timeout(Duration::from_secs(1));
        }
        reply.send(cx, ());
    }
}

type Prompt = Case<0, 0>;
type Late = Case<400, 0>;
type Dropper = Case<0, 100>;

/// Runs a command line; returns exit code, stdout, stderr.
fn tailbeam(store: &Path, line: &str) -> (u8, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let words = ["tailbeam", "--store"].map(OsString::from).into_iter();
    let words =
        words.chain([store.as_os_str().to_owned()]).chain(line.split(' ').map(OsString::from));
    let code = tailbeam::run(
        words,
        workloads![Prompt, Late, Dropper, Blocker, tailbeam::Elicit],
        &mut out,
        &mut err,
    );
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

fn only_run(store: &Path) -> PathBuf {
    let mut runs = fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path());
    runs.next().unwrap()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A reader of its own, from the table of bytes in probes/src/record/format.rs: kind and payload of every
/// frame, without a line of the product's code.
fn raw_frames(run: &Path) -> Vec<(u16, Vec<u8>)> {
    let mut frames = Vec::new();
    let mut segments: Vec<PathBuf> =
        fs::read_dir(run.join("seg")).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.sort();
    for segment in segments {
        let bytes = fs::read(segment).unwrap();
        let mut at = 0;
        while at < bytes.len() {
            assert_eq!(&bytes[at..at + 4], b"TBF1");
            let kind = u16::from_le_bytes(bytes[at + 6..at + 8].try_into().unwrap());
            let length = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
            frames.push((kind, bytes[at + 28..at + 28 + length].to_vec()));
            at += 28 + length + 4;
        }
    }
    frames
}

/// Count, maximum and buckets of a series, summed by hand.
#[derive(Default)]
struct Raw {
    count: u64,
    max: u64,
    buckets: BTreeMap<u64, u64>,
}

impl Raw {
    /// Adds the bytes of probes/src/stats/histogram.rs: 48 of header, then HdrHistogram's own V2.
    fn add(&mut self, bytes: &[u8]) {
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        self.count += word(0);
        self.max = self.max.max(word(24));
        let mut deserializer = hdrhistogram::serialization::Deserializer::new();
        let hdr: hdrhistogram::Histogram<u64> =
            deserializer.deserialize(&mut &bytes[48..]).unwrap();
        for bucket in hdr.iter_recorded() {
            let upper = hdr.highest_equivalent(bucket.value_iterated_to());
            *self.buckets.entry(upper).or_default() += bucket.count_since_last_iteration();
        }
    }

    /// The smallest bucket that at least 99 of 100 values do not exceed.
    fn p99(&self) -> u64 {
        assert_eq!(self.buckets.values().sum::<u64>(), self.count);
        let mut seen = 0;
        let reached = |(_, count): &(&u64, &u64)| {
            seen += **count;
            seen * 100 >= self.count * 99
        };
        (*self.buckets.iter().find(reached).unwrap().0).min(self.max)
    }
}

/// System latency, attempts and the sum of all outcomes.
fn raw_figures(run: &Path) -> (Raw, u64, u64) {
    let (mut system, mut attempts, mut closed) = (Raw::default(), 0, 0);
    for (kind, payload) in raw_frames(run) {
        match kind {
            3 if payload[6] == 0 => system.add(&payload[8..]),
            2 => {
                let window = json(std::str::from_utf8(&payload).unwrap());
                for second in window["seconds"].as_array().unwrap() {
                    let outcomes = second["counts"]["outcomes"].as_object().unwrap();
                    attempts += outcomes["attempts"].as_u64().unwrap();
                    let others = outcomes.iter().filter(|(name, _)| *name != "attempts");
                    closed += others.map(|(_, count)| count.as_u64().unwrap()).sum::<u64>();
                }
            }
            _ => {}
        }
    }
    (system, attempts, closed)
}

const FAST: &str = "--agents 400 --think 100ms..300ms --timeout 2s --progress none --format json";

#[test]
fn a_run_is_reported_from_its_frames_alone() {
    let store = tempfile::tempdir().unwrap();
    let line = format!(
        "soak --workload elicit {FAST} --delay 10ms..50ms --duration 3s --gate outcomes,littles_law"
    );
    let (code, out, err) = tailbeam(store.path(), &line);
    assert_eq!(code, 0, "{out}{err}");
    let printed = json(&out);
    let data = &printed["data"];
    assert_eq!(data["agents"]["live_min"], 400);
    assert_eq!(data["verdict"], "GO");
    let (code, schema, _) = tailbeam(store.path(), "report --schema");
    assert_eq!(code, 0);
    let schema = jsonschema::validator_for(&json(&schema)).unwrap();
    schema.validate(&printed).unwrap();
    let (system, attempts, closed) = raw_figures(&only_run(store.path()));
    let row = &data["latency"][0];
    assert_eq!(row["count"], system.count);
    assert_eq!(row["p99_ns"], system.p99());
    assert_eq!(row["max_ns"], system.max);
    assert_eq!(data["load"]["outcomes"]["attempts"], attempts);
    assert_eq!(attempts, closed);
    let (_, again, _) = tailbeam(store.path(), "report @last --format json");
    assert_eq!(again, out, "a report is a function of the run directory");
}

#[test]
fn swapped_frames_show_the_other_runs_figures() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let gates = "--gate outcomes --duration 2s";
    tailbeam(one.path(), &format!("soak --workload prompt {FAST} {gates} --seed 5"));
    tailbeam(two.path(), &format!("soak --workload prompt {FAST} {gates} --seed 5"));
    let (from, to) = (only_run(two.path()), only_run(one.path()));
    let (_, theirs, _) = tailbeam(two.path(), "report @last --format json");
    fs::remove_dir_all(to.join("seg")).unwrap();
    fs::rename(from.join("seg"), to.join("seg")).unwrap();
    let (_, swapped, _) = tailbeam(one.path(), "report @last --format json");
    assert_eq!(swapped, theirs);
}

#[test]
fn a_late_responder_fails_the_percentile_and_a_dropping_one_the_delivery() {
    let store = tempfile::tempdir().unwrap();
    let line = format!("soak --workload late {FAST} --duration 22s --gate p99<300ms");
    let (code, out, err) = tailbeam(store.path(), &line);
    assert_eq!(code, 3, "{out}{err}");
    assert_eq!(json(&out)["data"]["gates"][0]["verdict"], "FAIL");
    let store = tempfile::tempdir().unwrap();
    let line = format!("soak --workload dropper {FAST} --duration 22s --gate delivery>=99.9%");
    let (code, out, err) = tailbeam(store.path(), &line);
    assert_eq!(code, 3, "{out}{err}");
}

#[test]
fn a_core_that_its_own_agent_blocks_is_no_gap_from_outside() {
    let store = tempfile::tempdir().unwrap();
    let line = format!("soak --workload blocker {FAST} --duration 5s --gate generator");
    let (code, out, err) = tailbeam(store.path(), &line);
    assert_eq!(code, 3, "{out}{err}");
    let data = &json(&out)["data"];
    assert_eq!(data["validity"][0]["holds"], true, "{}", data["validity"]);
    assert!(
        data["latency"][0]["max_ns"].as_u64().unwrap() > 900_000_000,
        "the block is in the tail"
    );
}

/// Answers that take half of the run: their requests are closed in the drain.
#[test]
fn littles_law_holds_when_requests_are_long_against_the_run() {
    let store = tempfile::tempdir().unwrap();
    let line = format!(
        "soak --workload elicit {FAST} --timeout 10s --delay 2s..3s --duration 5s --gate littles_law,outcomes"
    ).replace("--timeout 2s ", "");
    let (code, out, err) = tailbeam(store.path(), &line);
    assert_eq!(code, 0, "{out}{err}");
}

#[test]
fn a_short_run_is_inconclusive_for_a_percentile_and_says_what_it_needs() {
    let store = tempfile::tempdir().unwrap();
    let (code, out, _) = tailbeam(
        store.path(),
        &format!("soak --workload prompt {FAST} --duration 2s --gate p99<300ms"),
    );
    assert_eq!(code, 4);
    let gate = &json(&out)["data"]["gates"][0];
    assert_eq!(gate["verdict"], "INCONCLUSIVE");
    assert!(gate["needs_more_s"].as_f64().unwrap() > 1_700.0);
}

#[test]
fn damage_and_foreign_runs_are_said_and_lose_nothing_else() {
    let store = tempfile::tempdir().unwrap();
    tailbeam(store.path(), &format!("soak --workload prompt {FAST} --duration 2s --gate outcomes"));
    let run = only_run(store.path());
    let segment = run.join("seg/0000.log");
    let whole = fs::read(&segment).unwrap();
    // Cut inside the per-agent counts: the window stays, the end is gone.
    fs::write(&segment, &whole[..whole.len() - 10_700]).unwrap();
    let (code, out, _) = tailbeam(store.path(), "report @last");
    assert_eq!(code, 4, "{out}");
    assert!(
        out.contains("torn tail") && out.contains("not sealed") && out.contains("per-agent counts"),
        "{out}"
    );
    fs::write(&segment, &whole).unwrap();
    fs::write(run.join("plan.toml"), "agents = 5\n").unwrap();
    let (code, _, err) = tailbeam(store.path(), "report @last");
    assert_eq!(code, 6);
    assert!(err.contains("does not match its frames") && err.contains("remedy:"), "{err}");
    fs::write(&segment, b"not a segment at all").unwrap();
    assert_eq!(tailbeam(store.path(), "report @last").0, 6);
    let (code, list, _) = tailbeam(store.path(), "runs list");
    assert_eq!(code, 0);
    assert!(list.contains("unreadable"), "{list}");
    // Between the directory and the first frame, at whatever instant, nothing is damaged.
    let refused = || {
        let (code, _, err) = tailbeam(store.path(), "report @last");
        assert!(code == 1 && err.contains("nothing is recorded in run"), "{code}: {err}");
    };
    fs::write(&segment, &whole[..68]).unwrap();
    assert_eq!(tailbeam(store.path(), "report @last").0, 6, "what ends a run is there");
    fs::remove_file(run.join("waits.json")).unwrap();
    refused();
    fs::write(&segment, b"").unwrap();
    refused();
    assert!(tailbeam(store.path(), "runs list").1.contains("not begun"));
    // What is lost is no beginning.
    fs::write(segment.with_file_name("0001.log"), &whole).unwrap();
    fs::remove_file(&segment).unwrap();
    assert_eq!(tailbeam(store.path(), "report @last").0, 6);
    fs::remove_file(segment.with_file_name("0001.log")).unwrap();
    fs::write(&segment, b"").unwrap();
    fs::remove_file(&segment).unwrap();
    fs::remove_file(run.join("plan.toml")).unwrap();
    refused();
    fs::write(&segment, &whole).unwrap();
    let (code, _, err) = tailbeam(store.path(), "report @last");
    assert!(code == 6 && err.contains("cannot read plan.toml"), "{code}: {err}");
}

#[test]
fn bad_input_gets_one_clear_error_and_the_right_code() {
    let store = tempfile::tempdir().unwrap();
    let cases = [
        ("soak --bogus", 2, "unexpected argument"),
        ("soak --agents 0", 2, "--agents is 0"),
        ("soak --agents 999999m", 2, "--agents is"),
        ("soak --duration 5", 2, "duration with a unit"),
        ("soak --think 5s..1s", 2, "runs backwards"),
        ("soak --duration 99999999d", 2, "remedy:"),
        ("soak --seed x", 2, "cause: invalid digit"),
        ("soak --pending-max 99999999999", 2, "remedy:"),
        ("soak --gate p98<1s", 2, "no gate"),
        ("soak --workload none", 2, "no workload"),
        ("soak --cores 4000 --agents 10 --duration 1s", 5, "not allowed"),
        ("report nothing", 1, "no run named"),
        ("report @last", 1, "no run named"),
        ("bogus", 2, "unrecognized subcommand"),
    ];
    for (line, code, text) in cases {
        let (got, out, err) = tailbeam(store.path(), line);
        assert_eq!((got, out.as_str()), (code, ""), "{line}: {err}");
        assert!(err.contains(text), "{line}: {err}");
    }
    assert_eq!(tailbeam(Path::new("/proc/nowhere"), "soak --agents 2 --duration 1s").0, 1);
    assert_eq!(tailbeam(Path::new("/nowhere"), "runs list").0, 1);
}

#[test]
fn doctor_names_value_and_remedy() {
    let (code, out, _) = tailbeam(Path::new("/nowhere"), "doctor");
    assert_eq!(code, 0);
    assert!(out.contains("io_uring") && out.contains("kernel"), "{out}");
    let (_, out, _) = tailbeam(Path::new("/nowhere"), "doctor --format json");
    assert_eq!(json(&out)["schema"], "tailbeam.doctor");
}

/// 60 ms are twice what makes a stall; the agent, its core and where it was are named, with the report's own schema.
#[test]
fn a_turn_that_keeps_its_core_is_named_with_its_function() {
    let store = tempfile::tempdir().unwrap();
    let plant = "--plant-slow kind=compute,ms=60,agent=17,every=1";
    let line = format!("soak --workload elicit {FAST} --duration 3s --gate outcomes {plant}");
    assert_eq!(tailbeam(store.path(), &line).0, 0);
    let (_, out, _) = tailbeam(store.path(), "report @last --format json");
    let stalls = &json(&out)["data"]["stalls"];
    assert_eq!(stalls["limit_ns"], 25_000_000);
    let longest = stalls["longest"].as_array().unwrap();
    assert!(stalls["found"].as_u64().unwrap() >= longest.len() as u64 && !longest.is_empty());
    let own: Vec<_> = longest.iter().filter(|row| row["agent"] == 17).collect();
    assert!(!own.is_empty(), "{stalls:#}");
    for row in &own {
        assert!(row["owner"].as_str().unwrap().starts_with("agent 17 ("), "{row:#}");
        assert!(row["at_least_ns"].as_u64().unwrap() >= 25_000_000, "{row:#}");
    }
    // A look that came too late says so; every other one was in the turn.
    let seen: Vec<_> = own.iter().filter(|row| row["stack"].is_array()).collect();
    let refused = |row: &&Value| {
        row["stack"]["unknown"].as_str().is_some_and(|why| !why.contains("turn was over"))
    };
    assert!(!seen.is_empty() || own.iter().copied().all(|row| refused(&row)), "{stalls:#}");
    for row in seen {
        assert!(row["stack"].to_string().contains("load::slow::"), "{row:#}");
    }
    let (_, text, _) = tailbeam(store.path(), "report @last");
    assert!(text.contains("kept a core from all others") && text.contains("agent 17 ("), "{text}");
}
