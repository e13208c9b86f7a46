//! Scripted clocks: drift, bends, steps, changes, and 72 hours of weather.

use super::*;

/// A world whose true time is ns; counter and clocks are lines of it.
struct World {
    true_ns: f64,
    ticks: f64,
    raw_ns: f64,
    mono_ns: f64,
    ticks_per_ns: f64,
    mono_per_ns: f64,
    half_width: u64,
}

impl World {
    fn new() -> Self {
        Self {
            true_ns: 0.0,
            ticks: 7e12,
            raw_ns: 5e12,
            mono_ns: 5e12,
            ticks_per_ns: 2.596,
            mono_per_ns: 1.0,
            half_width: 30,
        }
    }

    fn pass(&mut self, ns: f64) {
        self.true_ns += ns;
        self.ticks += ns * self.ticks_per_ns;
        self.raw_ns += ns;
        self.mono_ns += ns * self.mono_per_ns;
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "all are positive")]
    fn sample(&self) -> Sample {
        let point = |ns: f64| Point {
            ticks: self.ticks as u64,
            ns: ns as u64,
            half_width: self.half_width,
        };
        Sample { raw: point(self.raw_ns), mono: point(self.mono_ns) }
    }

    fn started(&mut self) -> Calibrator {
        let first = self.sample();
        self.pass(20e6);
        let mut calibrator = Calibrator::start(first, self.sample());
        self.pass(10e9);
        assert_eq!(
            calibrator.observe(self.sample(), false).suspect,
            None,
            "20 ms draw well enough"
        );
        calibrator
    }
}

#[test]
fn a_steady_counter_is_exact_and_due_every_ten_seconds() {
    let mut world = World::new();
    let mut calibrator = world.started();
    for _ in 0..10 {
        world.pass(9.9e9);
        assert!(!calibrator.due(world.sample().mono.ticks));
        world.pass(0.2e9);
        assert!(calibrator.due(world.sample().mono.ticks));
        let record = calibrator.observe(world.sample(), false);
        assert_eq!(record.suspect, None);
        assert!(record.error_ns.abs() < 40 && record.pace_ppb.abs() < 10, "{record:?}");
        assert!(record.bound_ns < 60, "{record:?}");
    }
}

#[test]
fn a_change_of_pace_beyond_fifty_ppm_is_suspect_and_less_is_drift() {
    for (ppm, suspect) in [(40i32, false), (-40, false), (60, true), (-60, true)] {
        let mut world = World::new();
        let mut calibrator = world.started();
        world.ticks_per_ns *= 1.0 - f64::from(ppm) * 1e-6;
        world.pass(10e9);
        let record = calibrator.observe(world.sample(), false);
        let named = matches!(record.suspect, Some(Suspect::Pace(ppb)) if ppb != 0);
        assert_eq!(named, suspect, "{ppm}: {record:?}");
        let expected = i64::from(ppm) * 10_000;
        assert!((record.error_ns / 1_000 - expected / 1_000).abs() <= 1, "{ppm}: {record:?}");
        world.pass(10e9);
        let next = calibrator.observe(world.sample(), false);
        assert_eq!(next.suspect, None, "the new pace is the pace: {next:?}");
        assert!(next.error_ns.abs() < 50, "and the error is taken back: {next:?}");
    }
}

#[test]
fn a_wide_reading_excuses_what_it_leaves_open() {
    let mut world = World::new();
    let mut calibrator = world.started();
    // 60 ppm of 10 s are 600 us; readings that are 1 ms wide cannot tell.
    world.ticks_per_ns *= 1.0 - 60e-6;
    world.half_width = 2_596_000;
    world.pass(10e9);
    let record = calibrator.observe(world.sample(), false);
    assert_eq!(record.suspect, None);
    assert!(record.bound_ns > 1_000_000, "and the bound says so: {record:?}");
}

#[test]
fn ntp_bends_the_line_and_does_not_accuse_the_counter() {
    let mut world = World::new();
    let mut calibrator = world.started();
    world.mono_per_ns = 1.0 + 400e-6;
    for round in 0..5 {
        world.pass(10e9);
        let record = calibrator.observe(world.sample(), false);
        assert_eq!(record.suspect, None, "{record:?}");
        assert_eq!(record.error_ns.abs() > 1_000_000, round == 0, "{record:?}");
    }
}

#[test]
fn a_step_is_said_and_the_line_starts_anew_from_it() {
    for step_ns in [30_000_000i32, -30_000_000] {
        let mut world = World::new();
        let mut calibrator = world.started();
        world.mono_ns += f64::from(step_ns);
        world.pass(10e9);
        let record = calibrator.observe(world.sample(), false);
        let Some(Suspect::Step(said)) = record.suspect else { panic!("{record:?}") };
        assert!((said - i64::from(step_ns)).abs() < 100, "{record:?}");
        assert!(record.bound_ns >= 29_999_900);
        let now = world.sample();
        assert_eq!(calibrator.line().ns(now.mono.ticks), now.mono.ns);
    }
}

#[test]
fn a_counter_that_goes_back_or_stands_is_said() {
    for ticks in [0.0, -1e9] {
        let mut world = World::new();
        let mut calibrator = world.started();
        world.pass(10e9);
        world.ticks += ticks - 10e9 * world.ticks_per_ns;
        let record = calibrator.observe(world.sample(), false);
        assert_eq!(record.suspect, Some(Suspect::Backwards), "{ticks}");
        world.pass(10e9);
        assert_eq!(calibrator.observe(world.sample(), false).suspect, None);
    }
}

#[test]
fn another_clocksource_is_said_once() {
    let mut world = World::new();
    let mut calibrator = world.started();
    world.pass(10e9);
    let record = calibrator.observe(world.sample(), true);
    assert_eq!(record.suspect, Some(Suspect::Clocksource));
    world.pass(10e9);
    assert_eq!(calibrator.observe(world.sample(), false).suspect, None);
}

#[test]
fn ticks_that_are_ns_need_no_line() {
    let point = |ns| Point { ticks: ns, ns, half_width: 20 };
    let sample = |ns| Sample { raw: point(ns), mono: point(ns) };
    let mut calibrator = Calibrator::identity(sample(1_000));
    assert!(!calibrator.due(1_000 + PERIOD_NS - 1) && calibrator.due(1_000 + PERIOD_NS));
    let record = calibrator.observe(sample(1_000 + PERIOD_NS), false);
    assert_eq!((record.error_ns, record.suspect), (0, None));
    assert_eq!(calibrator.line(), Line::IDENTITY);
}

/// The pace follows the temperature by 5 ppm over a day, NTP bends by 20 ppm over an hour: at every
/// stamp of 72 hours the line is off by no more than the window says, and it never goes back.
#[test]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "all are positive")]
fn the_bound_holds_over_seventy_two_hours_of_weather() {
    let mut world = World::new();
    let mut calibrator = world.started();
    let mut last_ns = 0;
    for window in 0..72 * 360 {
        let hours = f64::from(window) / 360.0;
        world.ticks_per_ns = 2.596 * (1.0 + 5e-6 * (hours / 24.0 * std::f64::consts::TAU).sin());
        world.mono_per_ns = 1.0 + 20e-6 * (hours * std::f64::consts::TAU).sin();
        let line = calibrator.line();
        let mut stamps = Vec::new();
        for _ in 0..4 {
            world.pass(2.5e9);
            stamps.push((world.ticks as u64, world.mono_ns as u64));
        }
        let record = calibrator.observe(world.sample(), false);
        assert_eq!(record.suspect, None, "window {window}: {record:?}");
        for (ticks, truth) in stamps {
            let ns = line.ns(ticks);
            assert!(
                ns.abs_diff(truth) <= record.bound_ns,
                "window {window}: {ns} {truth} {record:?}"
            );
            assert!(ns > last_ns);
            last_ns = ns;
        }
        assert!(record.bound_ns < 10_000, "window {window}: {record:?}");
    }
}
