//! What a user reads of latency, from a run directory made by hand: texts checked by eye, JSON against the
//! published schemas, and input that is not what it should be.

mod cost;
pub(crate) mod fixture;

use serde_json::Value;
use tailbeam_harness::report::counters::{self, CountersReport, Slots};
use tailbeam_harness::report::latency::{self, Holds, LatencyReport, Question};
use tailbeam_probes::record::latency::{
    Count, FleetSecond, LatencyWindow, LongTurn, Off, Stage, Sums, ThrottleRecord, Why,
};

use fixture::{Run, SECOND};
use tailbeam::render::latency::counters::Per;
use tailbeam::render::latency::{self as render, By};

fn built(run: Run, question: &Question) -> LatencyReport {
    let dir = tempfile::tempdir().unwrap();
    run.write(dir.path());
    latency::build(dir.path(), question).unwrap()
}

fn report(change: impl FnOnce(&mut Run)) -> LatencyReport {
    let mut run = Run::new();
    change(&mut run);
    built(run, &Question { outliers: 3, ..Question::default() })
}

fn each(run: &mut Run, change: impl Fn(&mut LatencyWindow)) {
    run.windows.iter_mut().flat_map(|window| &mut window.cores).for_each(change);
}

fn text(draw: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> String {
    let mut out = Vec::new();
    draw(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// Compares with the text kept beside this file; `TAILBEAM_UPDATE_TEXTS=1` writes it anew, to be read
/// before it is committed.
fn check(name: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("latency/texts").join(name);
    if std::env::var_os("TAILBEAM_UPDATE_TEXTS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, kept, "{} differs", path.display());
}

/// From the line that begins with `from`.
fn part(text: &str, from: &str) -> String {
    let at = text.find(from).unwrap_or_else(|| panic!("{from:?} is not in {text}"));
    text[at..].to_owned()
}

#[test]
fn texts_are_as_they_were_read() {
    let made = report(|_| {});
    // What measuring cost is a text of its own.
    let band = text(|out| render::report(&made, By::Band, out));
    check("band.txt", band.split("\nMeasuring (").next().unwrap());
    check("outliers.txt", &text(|out| render::outliers(&made, out)));
    let view = |by: By, from: &str| {
        let whole = part(&text(|out| render::report(&made, by, out)), from);
        whole.split("\nConservation").next().unwrap().to_owned()
    };
    check("stage.txt", &view(By::Stage, "Stages by band"));
    check("core.txt", &view(By::Core, "Stages by the core"));
    check("agent.txt", &view(By::Agent, "Agents by time"));
    check("type.txt", &view(By::Type, "Stages by the kind"));
}

fn counted(change: impl FnOnce(&mut Run), slots: Slots) -> CountersReport {
    let dir = tempfile::tempdir().unwrap();
    let mut run = Run::new();
    change(&mut run);
    run.write(dir.path());
    counters::build(dir.path(), &Question::default(), slots).unwrap()
}

const FEW: Slots = Slots { every_ns: None, rows_max: 10, core: None };

#[test]
fn counters_are_told_with_their_quality_and_in_bounded_rows() {
    let made = counted(|_| {}, Slots { core: Some(3), ..FEW });
    check("counters.txt", &text(|out| render::counters::report(&made, Per::Second, out)));
    let [core] = &made.cores[..] else { panic!("{:?}", made.cores) };
    assert!(core.slots.len() <= 10 && core.slots.iter().map(|slot| slot.ticks).sum::<u64>() == 60);
    let of = |name: &str| core.total.counters.iter().find(|of| of.name == name).unwrap();
    // 30 % of the time by construction, and 6,000 requests of both cores, half answered here.
    assert_eq!((of("task-clock").count, core.answered), (Some(60 * 330_000_000), 3_000));
    assert_eq!(of("task-clock").per_request, Some(60.0 * 330e6 / 3_000.0));
    let cycles = of("cycles");
    assert_eq!((cycles.count, cycles.per_s, cycles.covered_ns), (None, None, 0));
    assert_eq!(cycles.remedy.as_deref(), Some("run on bare metal"));
    // One tick of each window was rough: the sum is no better than that.
    assert_eq!(of("instructions").quality, counters::Quality::Rough);
    let request = text(|out| render::counters::report(&made, Per::Request, out));
    assert!(request.contains("6,600,000 a request"), "{request}");
}

#[test]
fn a_count_that_is_unknown_for_a_time_is_a_rate_over_the_rest() {
    let made = counted(
        |run| {
            each(run, |window| {
                window.ticks.iter_mut().take(5).for_each(|tick| {
                    tick.counters[1].count = Count::Unknown("starved".to_owned());
                });
            });
        },
        FEW,
    );
    let faults = &made.cores[0].total.counters[1];
    assert_eq!((faults.name.as_str(), faults.covered_ns), ("page-faults", 30 * SECOND));
    // 15 to 19 faults in the ticks that are known.
    assert_eq!((faults.count, faults.per_s), (Some(6 * 85), Some(17.0)));
    assert_eq!(faults.unknown.as_deref(), Some("starved"));
}

#[test]
fn stages_sum_to_the_latency_of_each_band_and_what_is_unknown_is_said() {
    let made = report(|_| {});
    let failed: Vec<_> =
        made.conservation.checks.iter().filter(|check| check.holds == Holds::Fail).collect();
    assert!(failed.is_empty(), "{failed:?}");
    for band in &made.bands {
        let of = &band.composition;
        let sum: f64 = of.stages.iter().map(|stage| stage.mean_ns).sum();
        assert!((sum - of.mean_ns.known().unwrap()).abs() < 1e-6 * sum, "{band:?}");
        assert_eq!(band.check.as_ref().unwrap().holds, Holds::Ok);
    }
    assert_eq!(made.bands.iter().map(|band| band.composition.count).sum::<u64>(), 6_000);
    let slow = made.bands.last().unwrap();
    assert_eq!(slow.max_ns.known(), made.series[0].max_ns.known());
    let queue = slow.composition.stages.iter().find(|stage| stage.stage == "run_queue").unwrap();
    assert!(queue.share > 0.99, "{queue:?}");
    // Of this band none was drawn: that is said, and no cause is made up.
    assert!(slow.causes.known().is_none(), "{:?}", slow.causes);
    assert_eq!(made.outliers.len(), 3);
    assert_eq!(made.outliers[0].behind[0].agent, Some(17));
}

#[test]
fn what_does_not_add_up_is_called_fail_where_it_lies() {
    let made = report(|run| {
        each(run, |window| {
            for bucket in &mut window.buckets {
                // The run queue is forgotten.
                bucket.sums.stages[3] = 0;
            }
        });
    });
    assert_eq!(made.conservation.holds, Holds::Fail);
    let drawn = text(|out| render::report(&made, By::Band, out));
    assert!(drawn.contains("FAIL conservation: stages = latency"), "{drawn}");
    assert!(drawn.contains("allowed: FAIL") && drawn.contains("Conservation  FAIL"), "{drawn}");
}

/// The verdict of the run, as the program gives it.
#[test]
fn what_does_not_add_up_is_no_go_in_the_verdict_of_the_run() {
    let judged = |change: &dyn Fn(&mut LatencyWindow)| {
        let store = tempfile::tempdir().unwrap();
        let mut run = Run::new();
        each(&mut run, change);
        let dir = store.path().join("20261126-020000-000");
        std::fs::create_dir(&dir).unwrap();
        run.write(&dir);
        let words = ["tailbeam", "--store", store.path().to_str().unwrap(), "report", "@last"];
        let words = words.iter().chain(&["--gate", "conservation"]).map(std::ffi::OsString::from);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = tailbeam::run(words, &[], &mut out, &mut err);
        (code, String::from_utf8(out).unwrap() + &String::from_utf8(err).unwrap())
    };
    let (_, sound) = judged(&|_| {});
    assert!(!sound.contains("FAIL"), "{sound}");
    let (code, text) = judged(&|window| {
        let buckets = window.buckets.iter_mut();
        buckets.for_each(|bucket| bucket.sums.stages[Stage::RunQueue.index()] = 0);
    });
    assert_eq!(code, 3, "{text}");
    assert!(
        text.contains("FAIL conservation: stages = latency") && text.contains("NO-GO"),
        "{text}"
    );
    assert!(text.contains("run queue"), "{text}");
}

#[test]
fn a_part_of_a_run_is_its_whole_windows() {
    let at = |from_s: u64, to_s: u64| Question {
        from_ns: from_s * SECOND,
        to_ns: to_s * SECOND,
        ..Question::default()
    };
    let made = built(Run::new(), &at(15, 25));
    assert_eq!((made.run.windows, made.run.windows_on_disk), (2, 6));
    assert_eq!((made.run.from_s, made.run.to_s, made.all.count), (10.0, 30.0, 2_000));
    let dir = tempfile::tempdir().unwrap();
    Run::new().write(dir.path());
    let error = latency::build(dir.path(), &at(70, 80)).unwrap_err();
    assert!(
        !error.is_corrupt() && error.to_string().contains("it has 6 windows, up to 60 s"),
        "{error}"
    );
    let agent = Question { agent: Some(40), outliers: 1_000, ..at(0, 20) };
    let made = built(Run::new(), &agent);
    assert!(!made.outliers.is_empty());
    assert!(made.outliers.iter().all(|of| of.asker == 40 || of.responder == 40));
    assert!(made.outliers.iter().any(|of| of.why == "uniform"), "what is usual is shown too");
}

/// An old run, one without its first window, one whose stages are all damaged, one of which some are.
#[test]
fn odd_runs_get_one_clear_sentence() {
    let refused = |change: &dyn Fn(&mut Run)| {
        let dir = tempfile::tempdir().unwrap();
        let mut run = Run::new();
        change(&mut run);
        run.write(dir.path());
        let error = latency::build(dir.path(), &Question::default()).unwrap_err();
        (error.is_corrupt(), error.to_string())
    };
    let (corrupt, old) =
        refused(&|run| run.windows.iter_mut().for_each(|window| window.cores.clear()));
    assert!(!corrupt && old.contains("without stages of latency"), "{old}");
    assert!(old.contains("cause:") && old.contains("remedy: record a new run"), "{old}");
    let (corrupt, none) = refused(&|run| run.windows.clear());
    assert!(!corrupt && none.contains("has no window on disk"), "{none}");
    let all = |run: &mut Run| {
        run.broken = (0..6).flat_map(|w| [(w, 0, vec![255; 40]), (w, 1, Vec::new())]).collect();
    };
    let (corrupt, text) = refused(&all);
    assert!(corrupt && text.contains("none of the 12 frames"), "{text}");
    // One of them: the rest is shown, and what is missing is said and makes it FAIL.
    let made = report(|run| run.broken.push((2, 1, vec![255; 40])));
    assert_eq!((made.requests.missing_windows, made.all.count), (1, 5_500));
    assert!(made.caveats[0].contains("unreadable latency stages"), "{:?}", made.caveats);
    assert_eq!(made.conservation.holds, Holds::Fail, "requests are counted that have no stages");
}

#[test]
fn a_run_without_requests_claims_nothing() {
    let made = report(|run| {
        for window in &mut run.windows {
            window.system.iter_mut().for_each(tailbeam_probes::stats::Histogram::clear);
        }
        each(run, |window| {
            window.buckets.clear();
            window.responders.iter_mut().for_each(|of| {
                (of.all, of.late) = (Sums::default(), Sums::default());
            });
            window.exemplars.clear();
            window.legs = Default::default();
            window.occupancy = [0; 3];
        });
    });
    assert_eq!((made.all.count, made.bands.len(), made.outliers.len()), (0, 0, 0));
    assert!(made.all.mean_ns.known().is_none() && made.series[0].p50_ns.known().is_none());
    assert_eq!(made.conservation.holds, Holds::Unknown);
    let drawn = text(|out| render::report(&made, By::Band, out));
    assert!(drawn.contains("none: no request was attributed"), "{drawn}");
    assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
    for by in [By::Stage, By::Core, By::Agent, By::Type] {
        let drawn = text(|out| render::report(&made, by, out));
        assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
    }
}

#[test]
fn requests_that_were_never_answered_are_in_a_stage_of_their_own() {
    let made = report(|run| {
        each(run, |window| {
            for of in &mut window.exemplars {
                of.stamps.answered_ns = 0;
                of.stamps.closed_ns = of.stamps.intended_ns + 10 * SECOND;
            }
            for bucket in &mut window.buckets {
                let total = bucket.sums.stages.iter().sum();
                bucket.sums.stages = [0; 14];
                bucket.sums.stages[13] = total;
            }
        });
    });
    let drawn = text(|out| render::report(&made, By::Band, out));
    assert!(drawn.contains("unanswered") && !drawn.contains("  service  "), "{drawn}");
    let drawn = text(|out| render::outliers(&made, out));
    assert!(drawn.contains("never answered  unanswered 10.0 s"), "{drawn}");
}

/// The turns that others wait behind are off their CPU for 3 ms; a quota held the process for so long in each second,
/// links lost messages, and of each window's requests so many were sent and never taken.
fn held(throttled_ns: u64, links_dropped: u64) -> LatencyReport {
    report(|run| {
        each(run, |window| {
            let off = |turn: &LongTurn| Off {
                from_ns: turn.from_ns + 1_000_000,
                to_ns: turn.from_ns + 4_000_000,
                preempted: true,
            };
            window.off = window.long_turns.iter().map(off).collect();
            // The slow ones were drawn as well: the band is explained from what was.
            window.exemplars.iter_mut().for_each(|of| of.why = Why::Uniform);
            if window.shard == 0 {
                let times = u64::from(throttled_ns > 0) * 4;
                let second = |k: u64| FleetSecond {
                    from_ns: window.from_ns + k * SECOND,
                    to_ns: window.from_ns + (k + 1) * SECOND,
                    throttle: Some(ThrottleRecord { periods: 10, times, ns: throttled_ns }),
                    links_dropped,
                    links_delayed: 0,
                    steps: [100, 100 - links_dropped, 100 - links_dropped, 100 - links_dropped],
                };
                window.more.seconds = (0..10).map(second).collect();
            }
        });
    })
}

#[test]
fn a_quota_and_faulty_links_are_named_at_the_top_and_in_the_bands() {
    let told = |made: &LatencyReport| text(|out| render::report(made, By::Band, out));
    let throttled = held(SECOND, 0);
    let said = told(&throttled);
    assert!(said.contains("! the CPU quota of the process throttled it 240 times"), "{said}");
    assert!(said.contains("behind the CPU quota: core"), "{said}");
    let last = throttled.bands.last().unwrap();
    let of = last.causes.known().unwrap().throttled.as_ref().unwrap();
    assert!(of.mean > 1e6 && of.mean <= *last.composition.mean_ns.known().unwrap(), "{of:?}");
    valid(render::LATENCY_SCHEMA, &text(|out| render::json(&throttled, out)));

    let clean = held(0, 0);
    let said = told(&clean);
    assert!(!said.contains("quota") && said.contains("(preempted)"), "{said}");
    assert!(clean.bands.iter().all(|band| band.causes.known().unwrap().throttled.is_none()));
    assert!(clean.caveats.iter().all(|text| !text.contains("links")), "{:?}", clean.caveats);

    let lost = held(0, 3);
    let seen = lost.last_seen.known().unwrap().sent;
    assert!(seen.at_least > 0 && seen.at_least == seen.at_most, "{seen:?}");
    let said = told(&lost);
    assert!(said.contains("when they were sent (the hop: links between cores lost"), "{said}");
    valid(render::LATENCY_SCHEMA, &text(|out| render::json(&lost, out)));
}

fn valid(schema: &str, document: &str) -> Value {
    let schema: Value = serde_json::from_str(schema).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let document: Value = serde_json::from_str(document).unwrap();
    let errors: Vec<String> =
        schema.iter_errors(&document).map(|e| format!("{e} at {}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:?}");
    for (path, bad) in [("/schema_version", Value::from(2)), ("/data/run/id", Value::Null)] {
        let mut broken = document.clone();
        *broken.pointer_mut(path).unwrap() = bad;
        assert!(schema.validate(&broken).is_err(), "{path}");
    }
    document
}

#[test]
fn documents_keep_their_schemas() {
    let schema = render::LATENCY_SCHEMA;
    for made in [report(|_| {}), report(|run| run.broken.push((2, 1, vec![255; 40])))] {
        let document = valid(schema, &text(|out| render::json(&made, out)));
        let back: LatencyReport = serde_json::from_value(document["data"].clone()).unwrap();
        assert_eq!(back.all.count, made.all.count);
    }
    let made = counted(|_| {}, FEW);
    let text = text(|out| render::counters::json(&made, out));
    let document = valid(render::counters::COUNTERS_SCHEMA, &text);
    assert_eq!(document["data"]["cores"][0]["core"], 1);
}
