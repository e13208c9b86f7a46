//! Timers of an executor: many that never fire, some that are put in and taken out, some that sleep.

use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::sync::mpsc::channel;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ::tokio::task::coop::unconstrained;

use super::actors::{CannotRun, Executor, run_on};
use super::{Begun, Job};
use crate::figure::{Figure, Round};
use crate::sheet::Sheet;
use crate::usage::{self, Used};
use crate::{clock, stats};

/// Timers put in and then taken out: so many parts of those that pend, so many times. The median leaves out
/// those in which another process had the core.
const PARTS: u32 = 100;
const BATCHES: usize = 21;
/// Tasks that sleep, each for so long at a time.
pub(crate) const SLEEPERS: u32 = 100;
pub(crate) const SLEEP_NS: u64 = 5_000_000;
/// No pending timer fires sooner, and none pends longer than twice as long.
const FAR_NS: u64 = 120_000_000_000;

/// What it costs to put a timer in and to take it out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Costs {
    start_ns: u64,
    start: Used,
    insert_ns: f64,
    cancel_ns: f64,
}

impl Costs {
    /// Times both, alternately, on a thread where `pending` timers pend; the first pair touches the memory.
    pub(crate) fn of<T>(
        pending: u32,
        mut insert: impl FnMut(u32) -> T,
        mut cancel: impl FnMut(T),
    ) -> Self {
        let count = (pending / PARTS).max(1);
        cancel(insert(count));
        let (start, start_ns) = (usage::process(), clock::now_ns());
        let each = |ns: u64| ns as f64 / f64::from(count);
        let mut batch = || {
            let from_ns = clock::now_ns();
            let timers = insert(count);
            let between_ns = clock::now_ns();
            cancel(timers);
            (each(between_ns - from_ns), each(clock::now_ns() - between_ns))
        };
        let (inserts, cancels) = (0..BATCHES).map(|_| batch()).unzip();
        let of = |values| stats::median(values).unwrap_or(f64::NAN);
        Self { start_ns, start, insert_ns: of(inserts), cancel_ns: of(cancels) }
    }

    /// The round, after the sleepers have slept for its length.
    pub(crate) fn round(self, sheet: &Sheet, seconds: f64) -> Round {
        clock::sleep(Duration::from_secs_f64(seconds));
        sheet.close();
        let late = sheet.latency();
        let us = |q| {
            let value = late.quantile_ns(q).map(|ns| ns as f64 / 1e3);
            Figure::or(value, &format!("none in {seconds} s"))
        };
        Round {
            window_ns: [self.start_ns, clock::now_ns()],
            used: usage::process().since(self.start),
            figures: vec![
                self.insert_ns.into(),
                self.cancel_ns.into(),
                us(0.5),
                us(0.99),
                (late.count as f64).into(),
            ],
        }
    }
}

/// Deadlines far away, in no order.
pub(crate) fn deadlines(count: u32) -> impl Iterator<Item = u64> {
    let from_ns = clock::now_ns() + FAR_NS;
    (0..u64::from(count)).map(move |n| from_ns + n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % FAR_NS)
}

/// Measures `E`; `spawn` spawns the sleeper of that number on the core that calls it.
pub(crate) fn begin<E: Executor>(
    job: Job,
    spawn: impl Fn(u32) + Send + 'static,
) -> Result<Begun, String> {
    let (send, receive) = channel();
    let ran = run_on::<E, _>(job.cores[0], move || async move {
        let (pends, costs) = costs(job.crowd, E::sleep_until).await;
        (0..SLEEPERS).for_each(spawn);
        let _ = send.send(costs);
        pending::<()>().await;
        drop(pends);
    });
    Ok(match ran {
        Err(CannotRun(why)) => Begun::NotRun(why),
        Ok(()) => {
            let costs = receive.recv().map_err(|_| "its core ended".to_owned())?;
            Begun::Measured(costs.round(job.sheet, job.seconds))
        }
    })
}

/// Makes timers and polls each once, which puts it in. Each lies in a box: their types must not move.
fn insert<F: Future<Output = ()>>(count: u32, make: &impl Fn(u64) -> F) -> Vec<Pin<Box<F>>> {
    // Its own task's waker would do, were it not that glommio counts a task's wakers in 15 bits.
    let mut cx = Context::from_waker(Waker::noop());
    let put_in = |at_ns| {
        let mut timer = Box::pin(make(at_ns));
        assert!(timer.as_mut().poll(&mut cx).is_pending(), "it is far away");
        timer
    };
    deadlines(count).map(put_in).collect()
}

/// The pending timers and [`Costs::of`] beside them. tokio lets a task poll 128 of its timers between two
/// turns unless it says that it knows better.
async fn costs<F: Future<Output = ()>>(
    pending: u32,
    make: impl Fn(u64) -> F,
) -> (Vec<Pin<Box<F>>>, Costs) {
    let measure = || {
        let pends = insert(pending, &make);
        (pends, Costs::of(pending, |count| insert(count, &make), drop))
    };
    unconstrained(poll_fn(|_| Poll::Ready(measure()))).await
}

/// Sleeps 5 ms again and again, and notes how much longer it took.
pub(crate) async fn sleeper<E: Executor>(sheet: &'static Sheet, number: u32) {
    let spread_ns = SLEEP_NS * u64::from(number) / u64::from(SLEEPERS);
    E::sleep_until(clock::now_ns() + SLEEP_NS + spread_ns).await;
    while sheet.is_open() {
        let at_ns = clock::now_ns() + SLEEP_NS;
        E::sleep_until(at_ns).await;
        sheet.timed(clock::now_ns().saturating_sub(at_ns));
    }
}
