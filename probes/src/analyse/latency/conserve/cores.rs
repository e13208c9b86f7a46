//! Cores: what the runtime, the task clock, the records of switches and schedstat say of the same time.
//!
//! A core's tick reads its sources one after the other, and may be put aside in between: what one tick lacks
//! the next has too much of. So a tick fails only if it does not fit together with either neighbour too.

use super::check::{Check, Figures, Misfit, What};
use super::{Given, SHARE, of_shard, shards};
use crate::record::latency::{CoreTick, Count, LatencyWindow, Stage};

/// The allowance is at least this, ns.
const LEAST_NS: f64 = 50_000.0;
/// Share of ticks without a figure that is let pass: a suspect reading now and then.
const UNKNOWN: f64 = 0.01;
/// schedstat lags by up to a tick of the kernel at both ends (HZ = 100), ns.
const LAG_NS: f64 = 20_000_000.0;
/// What schedstat may charge beyond the task clock per switch, ns: 9.5 to 18 us were seen here (2026-11-26).
const SWITCH_NS: f64 = 20_000.0;
/// What of a switch may be in the task clock and in the time off the CPU, ns: the kernel dates the record of a thread
/// that goes before it stops the thread's clocks, and that of one that comes after it has started them again. 1.09 to
/// 1.73 us a switch were seen here in runs of 88,000 to 182,000 switches a core (2026-11-26).
const BOTH_NS: f64 = 2_500.0;
const SWITCHED: &str = "context-switches";

fn counted(tick: &CoreTick, name: &str) -> Option<f64> {
    let record = tick.counters.iter().find(|record| record.name == name)?;
    match record.count {
        Count::Exact(count) | Count::Scaled(count, _) => Some(count as f64),
        Count::Rough(..) | Count::Unknown(_) => None,
    }
}

fn allowance(wall_ns: f64) -> f64 {
    (SHARE * wall_ns).max(LEAST_NS)
}

/// A tick's two sides, ns.
#[derive(Debug, Clone, Copy, Default)]
struct Sides {
    left: f64,
    right: f64,
    wall: f64,
}

impl Sides {
    fn and(self, other: Self) -> Self {
        Self {
            left: self.left + other.left,
            right: self.right + other.right,
            wall: self.wall + other.wall,
        }
    }

    fn fits(&self, one_sided: bool, slack_ns: f64) -> bool {
        let residual = self.left - self.right;
        (if one_sided { residual } else { residual.abs() }) <= allowance(self.wall) + slack_ns
    }
}

/// A core and its ticks.
struct Core<'a> {
    shard: u16,
    windows: Vec<&'a LatencyWindow>,
    ticks: Vec<&'a CoreTick>,
}

pub(super) fn all(given: &Given<'_>) -> Vec<Check> {
    let mut checks = Vec::new();
    for shard in shards(given.windows) {
        let windows = of_shard(given.windows, shard);
        let ticks = windows.iter().flat_map(|window| &window.ticks).collect();
        let core = Core { shard, windows, ticks };
        checks.push(core.covered());
        checks.push(core.compare(What::Parts { shard }, (true, None), |tick| {
            Ok((parts_ns(tick), wall_ns(tick)))
        }));
        checks.push(core.on_off());
        checks.push(core.compare(What::Blocked { shard }, (true, None), |tick| {
            Ok((
                known(tick.blocked_ns, SWITCHES)?,
                tick.parked_ns.saturating_add(tick.turns_ns) as f64,
            ))
        }));
        checks.push(core.run_time());
        checks.push(core.waiting());
        checks.push(core.service(given));
    }
    checks
}

/// Why a side is not known: its source and the cause.
type Missing = (&'static str, String);

const SWITCHES: &str = "records of switches";
const SCHEDSTAT: &str = "schedstat";
const TASK_CLOCK: &str = "task-clock";

fn known(value: Option<u64>, source: &'static str) -> Result<f64, Missing> {
    value.map(|ns| ns as f64).ok_or_else(|| (source, "it was not recorded".to_owned()))
}

fn task_clock(tick: &CoreTick) -> Result<f64, Missing> {
    let record = tick.counters.iter().find(|record| record.name == TASK_CLOCK);
    match record.map(|record| &record.count) {
        None => Err((TASK_CLOCK, "it was not recorded".to_owned())),
        Some(Count::Unknown(why)) => Err((TASK_CLOCK, why.clone())),
        Some(Count::Rough(_, permille)) => {
            Err((TASK_CLOCK, format!("it was counted for {permille} thousandths of the time")))
        }
        Some(Count::Exact(ns) | Count::Scaled(ns, _)) => Ok(*ns as f64),
    }
}

fn wall_ns(tick: &CoreTick) -> f64 {
    tick.to_ns.saturating_sub(tick.from_ns) as f64
}

fn parts_ns(tick: &CoreTick) -> f64 {
    [tick.turns_ns, tick.parked_ns, tick.spun_ns, tick.tick_ns].iter().map(|ns| *ns as f64).sum()
}

const REMEDY: &str = "the manifest's table says what this host lets us measure";

impl Core<'_> {
    fn lost(&self) -> u64 {
        self.ticks.iter().map(|tick| tick.lost).fold(0, u64::saturating_add)
    }

    /// How long stages, and with them ticks, may have been off, ns.
    fn off_ns(&self) -> f64 {
        let off = self.windows.iter().filter(|window| window.unstaged.count > 0);
        off.map(|window| window.to_ns.saturating_sub(window.from_ns) as f64).sum()
    }

    fn no_ticks(&self, what: What) -> Option<Check> {
        let none = self.ticks.is_empty();
        none.then(|| Check::unknown(what, "ticks", "none was recorded", "record counters"))
    }

    /// Both sides of each tick that has them, or why one has not.
    fn sides(
        &self,
        of: impl Fn(&CoreTick) -> Result<(f64, f64), Missing>,
    ) -> Vec<Result<Sides, Missing>> {
        let side = |tick: &&CoreTick| {
            let (left, right) = of(tick)?;
            Ok(Sides { left, right, wall: wall_ns(tick) })
        };
        self.ticks.iter().map(side).collect()
    }

    /// Compares tick by tick, and all together. `lag_ns`: only all together, with so much more allowed.
    fn compare(
        &self,
        what: What,
        (one_sided, lag_ns): (bool, Option<f64>),
        of: impl Fn(&CoreTick) -> Result<(f64, f64), Missing>,
    ) -> Check {
        if self.ticks.is_empty() {
            return Check::unknown(what, "ticks", "none was recorded", "record counters");
        }
        let sides = self.sides(of);
        let known: Vec<&Sides> = sides.iter().flatten().collect();
        let all = known.iter().fold(Sides::default(), |sum, side| sum.and(**side));
        let slack = lag_ns.unwrap_or(0.0);
        let wrong =
            (0..sides.len()).find(|&tick| lag_ns.is_none() && !fits(&sides, tick, one_sided));
        let fits_all = all.fits(one_sided, slack);
        let one = wrong.filter(|_| fits_all).and_then(|tick| sides[tick].as_ref().ok());
        let shown = one.copied().unwrap_or(all);
        let allowed = allowance(shown.wall) + slack;
        let n = known.len() as u64;
        let figures = Figures { left: shown.left, right: shown.right, allowed, n };
        let missing = sides.iter().find_map(|side| side.as_ref().err());
        if let Some((source, cause)) = missing
            && wrong.is_none()
            && fits_all
            && (sides.len() - known.len()) as f64 > UNKNOWN * sides.len() as f64
        {
            let cause =
                format!("in {} of {} ticks {cause}", sides.len() - known.len(), sides.len());
            let check = Check::unknown(what, source, cause, REMEDY);
            return if known.is_empty() { check } else { check.with(figures) };
        }
        Check::of(what, figures, wrong.is_none() && fits_all, || {
            wrong.map_or(Misfit::Itself, |tick| Misfit::Window(self.window_of(tick)))
        })
    }

    fn window_of(&self, mut tick: usize) -> u32 {
        for window in &self.windows {
            if tick < window.ticks.len() {
                return window.window;
            }
            tick -= window.ticks.len();
        }
        0
    }

    fn covered(&self) -> Check {
        let what = What::Ticks { shard: self.shard };
        if let Some(check) = self.no_ticks(what) {
            return check;
        }
        let (mut gaps, mut longest) = (0.0, (0.0, 0));
        for (later, pair) in self.ticks.windows(2).enumerate() {
            let gap = (pair[1].from_ns as f64 - pair[0].to_ns as f64).abs();
            gaps += gap;
            if gap > longest.0 {
                longest = (gap, later + 1);
            }
        }
        let first = self.windows.first().map_or(0, |window| window.from_ns);
        let last = self.windows.last().map_or(0, |window| window.to_ns);
        let wall = last.saturating_sub(first) as f64;
        let ticked: f64 = self.ticks.iter().map(|tick| wall_ns(tick)).sum();
        // A core ticks at its own pace: at both ends of the run up to its longest tick is in no window yet.
        let pace = self.ticks.iter().map(|tick| wall_ns(tick)).fold(0.0, f64::max);
        let off = self.off_ns();
        let allowed = allowance(wall) + if off > 0.0 { off + 2.0 * pace } else { 0.0 };
        let figures = Figures { left: gaps, right: 0.0, allowed, n: self.ticks.len() as u64 };
        let fits = gaps <= allowed && (ticked - wall).abs() <= allowed + 2.0 * pace;
        Check::of(what, figures, fits, || Misfit::Window(self.window_of(longest.1)))
    }

    fn on_off(&self) -> Check {
        let what = What::OnOff { shard: self.shard };
        let check = self.compare(what, (false, None), |tick| {
            let off = known(tick.preempted_ns, SWITCHES)? + known(tick.blocked_ns, SWITCHES)?;
            let (sum, wall) = (task_clock(tick)? + off, wall_ns(tick));
            // Of 100,000 agents that begin, a core switches 9,000 times a second and more: 1 % of it.
            let both = BOTH_NS * counted(tick, SWITCHED).unwrap_or(0.0);
            Ok((sum, sum.clamp(wall, wall + both)))
        });
        match self.lost() {
            0 => check,
            lost => {
                let figures = check.figures.unwrap_or_default();
                Check::of(what, figures, false, || Misfit::SwitchesLost(lost))
            }
        }
    }

    /// Over the whole run: schedstat's lag does not grow.
    ///
    /// The two need not agree to the allowance of the wall check. The task clock counts from where the thread came to
    /// its CPU. The scheduler seems to charge a thread that an interrupt has made ready from that instant on, which
    /// explains wake-ups by timers, and of those by another core 6.5 us. Two vCPUs, kernel 6.18 (2026-11-26): 10.3 us a wake-up by a timer, 16 us by another core,
    /// 0.2 us by a thread of the same core, which needs no interrupt; tracepoints show the charge beginning at
    /// the wake-up, 11.3 us before the switch. By the records of switches that time is time blocked, so it is the
    /// most that the charge may be above the task clock, and no more than `SWITCH_NS` a switch: a core that never
    /// sleeps, or whose switches are not counted, is allowed nothing.
    ///
    /// It may be below by what of each switch is in the task clock and in the time off the CPU, where it was measured to
    /// be: the charge ends with the record of the switch. Beside a TCP peer on the same core, 9,400 switches a second, the
    /// charge was 1.29 us a switch below the task clock, and 1.87 us of each were in both (2026-11-27).
    fn run_time(&self) -> Check {
        let what = What::RunTime { shard: self.shard };
        self.compare(what, (false, Some(LAG_NS)), |tick| {
            let (run, clock) = (known(tick.run_ns, SCHEDSTAT)?, task_clock(tick)?);
            let blocked = known(tick.blocked_ns, SWITCHES)?;
            let switches = counted(tick, SWITCHED).unwrap_or(0.0);
            let most = clock + blocked.min(SWITCH_NS * switches);
            let off = blocked + known(tick.preempted_ns, SWITCHES)?;
            let both = (clock + off - wall_ns(tick)).clamp(0.0, BOTH_NS * switches);
            Ok((run, run.clamp(clock - both, most)))
        })
    }

    /// Waiting is what was taken from it while it could run, and what it waited after it was woken: at least
    /// the preemptions and at most all time off the CPU.
    fn waiting(&self) -> Check {
        let what = What::Waiting { shard: self.shard };
        self.compare(what, (false, None), |tick| {
            let wait = known(tick.wait_ns, SCHEDSTAT)?;
            let preempted = known(tick.preempted_ns, SWITCHES)?;
            let most = preempted + known(tick.blocked_ns, SWITCHES)?;
            Ok((wait, wait.clamp(preempted, most)))
        })
    }

    /// The responders' own times, against the runtime's count of the turns that they lie in.
    fn service(&self, given: &Given<'_>) -> Check {
        let what = What::Service { shard: self.shard };
        if let Some(check) = self.no_ticks(what) {
            return check;
        }
        let of_window = |window: &LatencyWindow| {
            let answered = window.responders.iter().filter(|of| of.shard == self.shard);
            let ns: f64 = answered.map(|of| of.all.stages[Stage::Service.index()] as f64).sum();
            ns * window.stands_for() as f64
        };
        let service: f64 = given.windows.iter().map(of_window).sum();
        let turns: f64 = self.ticks.iter().map(|tick| tick.turns_ns as f64).sum();
        let wall: f64 = self.ticks.iter().map(|tick| wall_ns(tick)).sum();
        let n = self.ticks.len() as u64;
        let figures = Figures { left: service, right: turns, allowed: allowance(wall), n };
        Check::not_above(what, figures, || Misfit::Stages(vec![Stage::Service]))
    }
}

/// A tick fits alone, or with one of its neighbours; so does one that is not known.
fn fits(sides: &[Result<Sides, Missing>], tick: usize, one_sided: bool) -> bool {
    let Ok(own) = &sides[tick] else { return true };
    let with = |other: Option<&Result<Sides, Missing>>| {
        other
            .and_then(|other| other.as_ref().ok())
            .is_some_and(|other| own.and(*other).fits(one_sided, 0.0))
    };
    own.fits(one_sided, 0.0)
        || with(tick.checked_sub(1).and_then(|before| sides.get(before)))
        || with(sides.get(tick + 1))
}
