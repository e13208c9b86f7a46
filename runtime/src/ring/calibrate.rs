//! What each bell costs on this machine: one core rings, another one sleeps in its ring and says when it
//! woke. At most 50 ms; the decision is a function of the figures.

use std::hint;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering, fence};
use std::thread;

use super::bell::{self, Bells, ShardBell, ThreadBell};
use super::{Doorbells, Event, Ring, knock};
use crate::clock::monotonic_ns;
use crate::config::Cores;
use crate::error::StartError;
use crate::shard::pin;

/// The rounds end after this, ns; with the start of two threads it stays below 50 ms.
const ROUNDS_NS: u64 = 40_000_000;
/// Rounds of each bell at most, and fewest for a figure.
const ROUNDS_MAX: usize = 150;
const ROUNDS_MIN: usize = 15;
/// How long the sleeper is left alone before each bell: it must have stopped, ns.
const GAP_NS: u64 = 40_000;
/// The sleeper looks around after this; a bell that takes longer has failed. ns.
const SLEEP_NS: u64 = 4_000_000;
const MISSED_NS: u64 = 3_000_000;
/// A bell that has missed so often and never woken does not work.
const MISSES_MAX: u32 = 3;
/// Fences and barriers timed.
const FENCES: u64 = 20_000;
const BARRIERS: usize = 64;
/// Another bell must be better by this to be preferred, percent: medians move by as much.
const BETTER_PERCENT: u64 = 5;

/// The price of a bell, in medians.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BellCost {
    /// The ringing core's call, ns.
    pub call_ns: u64,
    /// From before the call until the sleeper runs, ns.
    pub wake_ns: u64,
    /// Of these, the ninth in ten, ns.
    pub wake_p90_ns: u64,
    /// Rounds measured.
    pub rounds: u32,
}

/// What was measured, or why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calibration {
    /// MSG_RING from an own ring.
    pub msg_ring: Result<BellCost, String>,
    /// MSG_RING as a register call.
    pub send_msg_ring: Result<BellCost, String>,
    /// A write to an eventfd that the sleeper's ring polls.
    pub event_fd: Result<BellCost, String>,
    /// A store, a SeqCst fence and a load, less the same without the fence, picoseconds.
    pub fence_ps: Result<u64, String>,
    /// membarrier(PRIVATE_EXPEDITED) while another thread of the process runs, ns.
    pub membarrier_ns: Result<u64, String>,
    /// Time spent, ns.
    pub took_ns: u64,
}

impl Calibration {
    /// The bells that these figures ask for.
    #[must_use]
    pub fn choose(&self) -> Bells {
        Bells {
            // A message of the own ring is submitted with whatever else is, so it is what others must beat.
            shards: match (&self.msg_ring, &self.event_fd) {
                (Ok(ring), Ok(event)) if is_better(event, ring) => ShardBell::EventFd,
                (Err(_), Ok(_)) => ShardBell::EventFd,
                _ => ShardBell::MsgRing,
            },
            threads: match (&self.send_msg_ring, &self.event_fd) {
                (Ok(ring), Ok(event)) if is_better(ring, event) => ThreadBell::SendMsgRing,
                (Ok(_), Err(_)) => ThreadBell::SendMsgRing,
                _ => ThreadBell::EventFd,
            },
        }
    }

    /// How long a shard takes to be woken by another one, ns.
    #[must_use]
    pub fn wake_ns(&self) -> Option<u64> {
        let cost = match self.choose().shards {
            ShardBell::MsgRing => &self.msg_ring,
            ShardBell::EventFd => &self.event_fd,
        };
        cost.as_ref().ok().map(|cost| cost.wake_ns)
    }

    fn without(why: &str) -> Self {
        let why = || why.to_owned();
        Self {
            msg_ring: Err(why()),
            send_msg_ring: Err(why()),
            event_fd: Err(why()),
            fence_ps: Err(why()),
            membarrier_ns: Err(why()),
            took_ns: 0,
        }
    }
}

/// Both are paid for with each message that finds a sleeper: the wait and the caller's time.
fn is_better(one: &BellCost, other: &BellCost) -> bool {
    let price = |cost: &BellCost| cost.wake_ns + cost.call_ns;
    price(one) * 100 < price(other) * (100 - BETTER_PERCENT)
}

/// Measures on the first two of `cores`: two threads that run for at most 50 ms.
///
/// # Errors
/// [`StartError`] when the cores cannot be used.
pub fn calibrate(cores: &Cores) -> Result<Calibration, StartError> {
    Ok(between(&pin::resolve(cores)?))
}

/// The figures of the first two of these CPUs as this process has measured them first.
pub(crate) fn once(cpus: &[usize]) -> Calibration {
    static FIRST: OnceLock<Calibration> = OnceLock::new();
    // One core has nothing to measure, and must not decide for the next runtime.
    if cpus.len() < 2 { between(cpus) } else { FIRST.get_or_init(|| between(cpus)).clone() }
}

fn between(cpus: &[usize]) -> Calibration {
    let &[ringer, sleeper, ..] = cpus else {
        return Calibration::without("there is one core, and nobody to wake");
    };
    let from_ns = monotonic_ns();
    let event = match Event::fd() {
        Ok(event) => event,
        Err(error) => return Calibration::without(&error.to_string()),
    };
    let stage = Stage::new(event);
    let measured = thread::scope(|scope| {
        scope.spawn(|| {
            let slept = pin::pin(sleeper).and_then(|()| stage.sleep());
            stage.gone.store(true, Ordering::Release);
            slept
        });
        let ringing = scope.spawn(|| {
            let rung = pin::pin(ringer).and_then(|()| stage.ring(from_ns + ROUNDS_NS));
            stage.stop.store(true, Ordering::Release);
            rung
        });
        ringing.join()
    });
    let mut calibration = match measured {
        Ok(Ok(calibration)) => calibration,
        Ok(Err(error)) => Calibration::without(&error.to_string()),
        Err(_) => Calibration::without("the measuring thread has panicked"),
    };
    calibration.took_ns = monotonic_ns() - from_ns;
    calibration
}

/// What the two threads share.
struct Stage {
    event: Event,
    ring_fd: AtomicI32,
    /// Sleeps begun.
    sleeps: AtomicU32,
    /// When the sleeper woke, ns; 0 once that was read.
    woke_ns: AtomicU64,
    stop: AtomicBool,
    /// The sleeper has ended.
    gone: AtomicBool,
}

impl Stage {
    const fn new(event: Event) -> Self {
        Self {
            event,
            ring_fd: AtomicI32::new(-1),
            sleeps: AtomicU32::new(0),
            woke_ns: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            gone: AtomicBool::new(false),
        }
    }

    fn sleep(&self) -> Result<(), StartError> {
        let mut ring = Ring::new(8, &self.event)?;
        // Release, here and below: pairs with the Acquire of the other thread's look.
        self.ring_fd.store(ring.fd(), Ordering::Release);
        while !self.stop.load(Ordering::Acquire) {
            self.sleeps.fetch_add(1, Ordering::Release);
            ring.wait(Some(SLEEP_NS));
            self.woke_ns.store(monotonic_ns(), Ordering::Release);
            while self.woke_ns.load(Ordering::Acquire) != 0 && !self.stop.load(Ordering::Acquire) {
                hint::spin_loop();
            }
        }
        Ok(())
    }

    /// Looks until `done`, the sleeper is gone or the time is over; `false` when it is not done.
    fn look(&self, until_ns: u64, mut done: impl FnMut() -> bool) -> bool {
        loop {
            if done() {
                return true;
            }
            if self.gone.load(Ordering::Acquire) || monotonic_ns() > until_ns {
                return done();
            }
            hint::spin_loop();
        }
    }

    /// One sleep and what woke it: (call, wake) in ns.
    fn round(&self, sleeps: u32, call: impl FnOnce() -> Result<(), String>) -> Round {
        let begun = || self.sleeps.load(Ordering::Acquire) == sleeps;
        if !self.look(monotonic_ns() + MISSED_NS, begun) {
            return Round::Ended;
        }
        let asleep_ns = monotonic_ns() + GAP_NS;
        self.look(asleep_ns, || false);
        let from_ns = monotonic_ns();
        let rung = call();
        let call_ns = monotonic_ns() - from_ns;
        let woke = || self.woke_ns.load(Ordering::Acquire) != 0;
        let reached = self.look(from_ns + MISSED_NS, woke);
        // A sleeper that was not reached looks around by itself.
        let woke = reached || self.look(from_ns + 2 * SLEEP_NS, woke);
        let woke_ns = self.woke_ns.swap(0, Ordering::AcqRel);
        match rung {
            _ if !woke => Round::Ended,
            Err(why) => Round::Failed(why),
            Ok(()) if !reached => Round::Missed,
            // It had looked around by itself just then.
            Ok(()) if woke_ns < from_ns => Round::Void,
            Ok(()) => Round::Took(call_ns, woke_ns - from_ns),
        }
    }

    /// Rings in turn, so that what the machine does meanwhile meets all bells alike.
    fn ring(&self, until_ns: u64) -> Result<Calibration, StartError> {
        let mut ring = Ring::new(8, &Event::fd()?)?;
        let has_ring = || self.ring_fd.load(Ordering::Acquire) >= 0;
        if !self.look(until_ns, has_ring) {
            return Ok(Calibration::without("the sleeping thread has no ring"));
        }
        let target = self.ring_fd.load(Ordering::Acquire);
        let kept = match bell::keep(target) {
            Ok(kept) => kept,
            Err(error) => return Ok(Calibration::without(&error.to_string())),
        };
        let mut misses = [0; 3];
        let mut bells: [Result<Vec<(u64, u64)>, String>; 3] = [const { Ok(Vec::new()) }; 3];
        for sleeps in 1..=3 * ROUNDS_MAX {
            if monotonic_ns() > until_ns || bells.iter().all(Result::is_err) {
                break;
            }
            let which = sleeps % 3;
            // A bell that has failed is not rung again; the sleeper is woken by the one that always works.
            let failed = bells[which].is_err();
            let round = self.round(u32::try_from(sleeps).unwrap_or(0), || match which {
                0 if !failed => ring_own(&mut ring, target),
                1 if !failed => bell::send_message(&kept).map_err(|error| error.to_string()),
                _ => {
                    knock(&self.event);
                    Ok(())
                }
            });
            match (round, &mut bells[which]) {
                (Round::Took(call, wake), Ok(rounds)) => rounds.push((call, wake)),
                (Round::Failed(why), bell @ Ok(_)) => *bell = Err(why),
                (Round::Missed, bell @ Ok(_)) => {
                    // One may be a core that was away for that long, on a shared machine.
                    misses[which] += 1;
                    if misses[which] == MISSES_MAX && bell.as_ref().is_ok_and(Vec::is_empty) {
                        *bell = Err("the sleeper was not woken".to_owned());
                    }
                }
                (Round::Ended, _) => break,
                _ => {}
            }
        }
        let [msg_ring, send_msg_ring, event_fd] = bells.map(|rounds| rounds.and_then(cost));
        Ok(Calibration {
            msg_ring,
            send_msg_ring,
            event_fd,
            fence_ps: Ok(fence_ps()),
            membarrier_ns: self.membarrier_ns(),
            took_ns: 0,
        })
    }

    /// With the other thread awake, as a peer that sends would be.
    fn membarrier_ns(&self) -> Result<u64, String> {
        bell::register_fences().map_err(|error| error.to_string())?;
        knock(&self.event);
        let woke = || self.woke_ns.load(Ordering::Acquire) != 0;
        if !self.look(monotonic_ns() + 2 * SLEEP_NS, woke) {
            return Err("the sleeper was not woken".to_owned());
        }
        let mut took = Vec::with_capacity(BARRIERS);
        for _ in 0..BARRIERS {
            let from_ns = monotonic_ns();
            bell::fence_everywhere().map_err(|error| error.to_string())?;
            took.push(monotonic_ns() - from_ns);
        }
        took.sort_unstable();
        Ok(took[BARRIERS / 2])
    }
}

enum Round {
    Took(u64, u64),
    Failed(String),
    Missed,
    Void,
    Ended,
}

fn ring_own(ring: &mut Ring, target: i32) -> Result<(), String> {
    let sent = ring.ring_bell(target, 0) && ring.submit();
    match ring.unreached() {
        None if sent => Ok(()),
        _ => Err("this kernel refuses MSG_RING".to_owned()),
    }
}

fn cost(rounds: Vec<(u64, u64)>) -> Result<BellCost, String> {
    if rounds.len() < ROUNDS_MIN {
        return Err(format!("there was time for {} rounds only", rounds.len()));
    }
    let (mut calls, mut wakes): (Vec<u64>, Vec<u64>) = rounds.into_iter().unzip();
    calls.sort_unstable();
    wakes.sort_unstable();
    Ok(BellCost {
        call_ns: calls[calls.len() / 2],
        wake_ns: wakes[wakes.len() / 2],
        wake_p90_ns: wakes[wakes.len() * 9 / 10],
        rounds: u32::try_from(wakes.len()).unwrap_or(u32::MAX),
    })
}

fn fence_ps() -> u64 {
    let (mine, other) = (AtomicU64::new(0), AtomicU64::new(0));
    let timed = |fenced: bool| {
        let from_ns = monotonic_ns();
        for n in 0..FENCES {
            mine.store(n, Ordering::Relaxed);
            if fenced {
                fence(Ordering::SeqCst);
            }
            hint::black_box(other.load(Ordering::Relaxed));
        }
        monotonic_ns() - from_ns
    };
    let best = |fenced| (0..5).map(|_| timed(fenced)).min().unwrap_or(0);
    let (with, without) = (best(true), best(false));
    with.saturating_sub(without) * 1_000 / FENCES
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn figures(
        msg_ring: Option<u64>,
        send_msg_ring: Option<u64>,
        event_fd: Option<u64>,
    ) -> Calibration {
        let cost = |wake: Option<u64>| {
            let cost = |wake_ns| BellCost { call_ns: 7, wake_ns, wake_p90_ns: wake_ns, rounds: 50 };
            wake.map(cost).ok_or_else(|| "missing".to_owned())
        };
        Calibration {
            msg_ring: cost(msg_ring),
            send_msg_ring: cost(send_msg_ring),
            event_fd: cost(event_fd),
            ..Calibration::without("not needed")
        }
    }

    #[test]
    fn the_cheaper_bell_is_chosen_and_a_tie_is_kept() {
        use {ShardBell as S, ThreadBell as T};
        let cases = [
            ((Some(170), Some(174), Some(220)), (S::MsgRing, T::SendMsgRing), Some(170)),
            ((Some(220), Some(220), Some(170)), (S::EventFd, T::EventFd), Some(170)),
            ((Some(220), Some(220), Some(215)), (S::MsgRing, T::EventFd), Some(220)),
            ((None, None, Some(220)), (S::EventFd, T::EventFd), Some(220)),
            ((Some(220), None, None), (S::MsgRing, T::EventFd), Some(220)),
            ((None, Some(220), None), (S::MsgRing, T::SendMsgRing), None),
            ((None, None, None), (S::MsgRing, T::EventFd), None),
        ];
        for ((ring, send, event), (shards, threads), wake_ns) in cases {
            let calibration = figures(ring, send, event);
            assert_eq!(calibration.choose(), Bells { shards, threads }, "{calibration:?}");
            assert_eq!(calibration.wake_ns(), wake_ns);
        }
    }

    #[test]
    fn one_core_has_nobody_to_wake() {
        assert!(between(&[0]).msg_ring.is_err_and(|why| why.contains("one core")));
    }

    #[test]
    fn a_calibration_ends_in_time_and_has_a_figure_or_a_reason() {
        let Ok(calibration) = calibrate(&Cores::Auto) else { return };
        // A scheduler that holds both threads back is not what is tested.
        assert!(calibration.took_ns < 500_000_000, "{calibration:?}");
        for bell in [&calibration.msg_ring, &calibration.send_msg_ring, &calibration.event_fd] {
            match bell {
                Ok(cost) => assert!(cost.wake_ns > 0 && cost.wake_p90_ns >= cost.wake_ns),
                Err(why) => assert!(!why.is_empty()),
            }
        }
    }
}
