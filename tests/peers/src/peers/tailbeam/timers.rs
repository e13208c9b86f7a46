//! Timers of a shard. They are put in and taken out between two turns; sleeping agents await them.

use tailbeam_runtime::{Agent, Cx, Runtime, Stop, TimerId};

use super::{begin_on, run_on};
use crate::clock;
use crate::figure::Round;
use crate::peers::Job;
use crate::peers::timers::{Costs, SLEEP_NS, SLEEPERS, deadlines};
use crate::sheet::Sheet;

/// Sleeps 5 ms again and again, and notes how much longer it took.
struct Sleeper(&'static Sheet);

impl Agent for Sleeper {
    /// Which one it is.
    type Msg = u32;

    async fn on(&mut self, number: u32, cx: &mut Cx<'_>) -> Result<(), Stop> {
        let spread_ns = SLEEP_NS * u64::from(number) / u64::from(SLEEPERS);
        sleep(cx, clock::now_ns() + SLEEP_NS + spread_ns).await?;
        while self.0.is_open() {
            let at_ns = clock::now_ns() + SLEEP_NS;
            sleep(cx, at_ns).await?;
            self.0.timed(clock::now_ns().saturating_sub(at_ns));
        }
        Err(Stop)
    }
}

async fn sleep(cx: &mut Cx<'_>, at_ns: u64) -> Result<(), Stop> {
    cx.sleep_until(at_ns).await.map_err(|_| Stop)
}

fn insert(cx: &mut Cx<'_>, count: u32) -> Vec<TimerId> {
    // A table that is full ends the round as failed.
    let put_in = |at_ns| cx.notify_at(at_ns, 0).expect("there is room for twice as many");
    deadlines(count).map(put_in).collect()
}

/// Puts in as many timers as are to pend, and measures beside them.
pub(super) fn measure(runtime: &Runtime, job: Job) -> Result<Round, String> {
    let costs = run_on(runtime, 0, move |cx| {
        let pends = insert(cx, job.crowd);
        let cx = std::cell::RefCell::new(cx);
        let cancel = |timers: Vec<TimerId>| {
            let mut cx = cx.borrow_mut();
            let cancelled = timers.into_iter().filter(|timer| cx.cancel(*timer)).count();
            std::hint::black_box(cancelled);
        };
        let costs = Costs::of(job.crowd, |count| insert(&mut cx.borrow_mut(), count), cancel);
        drop(pends);
        costs
    })?;
    for number in 0..SLEEPERS {
        begin_on(runtime, 0, Sleeper(job.sheet), number)?;
    }
    Ok(costs.round(job.sheet, job.seconds))
}
