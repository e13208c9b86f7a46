//! Commands as a user types them; each run has a store of its own.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tailbeam::{AgentInfo, Cx, ReplyTo, Span, Workload, workloads};
use tailbeam_probes::record::{Frame, read_dir};
use tailbeam_probes::stats::Histogram;

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
        workloads![Prompt, Late, Dropper, tailbeam::Elicit],
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

fn frames(run: &Path) -> Vec<Frame> {
    let (frames, damage) = read_dir(&run.join("seg")).unwrap();
    assert!(damage.is_empty(), "{damage:?}");
    frames
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
    // A small reader of its own: count, P99, maximum and outcome sum from the raw frames.
    let mut system = Histogram::new();
    let (mut attempts, mut closed) = (0, 0);
    for frame in frames(&only_run(store.path())) {
        match frame.kind {
            3 if frame.payload[6] == 0 => {
                system.merge(&Histogram::decode(&frame.payload[8..]).unwrap())
            }
            2 => {
                for second in json(std::str::from_utf8(&frame.payload).unwrap())["seconds"]
                    .as_array()
                    .unwrap()
                {
                    let outcomes = &second["counts"]["outcomes"];
                    attempts += outcomes["attempts"].as_u64().unwrap();
                    closed +=
                        ["ok", "declined", "cancelled", "expired", "refused", "lost", "error"]
                            .map(|name| outcomes[name].as_u64().unwrap())
                            .iter()
                            .sum::<u64>();
                }
            }
            _ => {}
        }
    }
    let row = &data["latency"][0];
    assert_eq!(row["count"], system.count());
    assert_eq!(row["p99_ns"], system.quantile(0.99).unwrap());
    assert_eq!(row["max_ns"], system.max().unwrap());
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
    // Cut inside the last frames: the window stays, the end is gone.
    fs::write(&segment, &whole[..whole.len() - 500]).unwrap();
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
