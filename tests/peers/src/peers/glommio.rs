//! glommio, an executor per core, default settings. A stream goes through its own channel between two
//! executors; that one has a single sender, so that mailboxes are tokio's channels as elsewhere.

use std::future::pending;

use ::glommio::channels::shared_channel::new_bounded;
use ::glommio::timer::Timer;
use ::glommio::{LocalExecutorBuilder, Placement, executor, spawn_local};

use super::actors::{CannotRun, Executor, Local, run_on};
use super::tasks::{self, Cell, STREAM};
use super::{Begun, Job, Work};
use crate::clock;

/// The executor of one core.
pub(crate) struct Glommio;

/// Starts `work`.
pub(crate) fn begin(work: Work, job: Job) -> Result<Begun, String> {
    match work {
        Work::Oneway => stream(job).or_else(|CannotRun(why)| Ok(Begun::NotRun(why))),
        work => tasks::begin::<Glommio>(work, job),
    }
}

fn stream(job: Job) -> Result<Begun, CannotRun> {
    let (to, from) = new_bounded::<Cell>(STREAM);
    let sheet = job.sheet;
    run_on::<Glommio, _>(job.cores[1], move || async move {
        let from = from.connect().await;
        let mut count = 0;
        while let Some(cell) = from.recv().await {
            count += std::hint::black_box(cell[0]);
            sheet.received(count);
        }
    })?;
    run_on::<Glommio, _>(job.cores[0], move || async move {
        let to = to.connect().await;
        while sheet.is_open() && to.send([1; 6]).await.is_ok() {}
        pending().await
    })?;
    Ok(Begun::Works)
}

impl Executor for Glommio {
    fn run<F: Future<Output = ()> + 'static>(
        core: usize,
        make: impl FnOnce() -> F,
    ) -> Result<(), String> {
        let builder = LocalExecutorBuilder::new(Placement::Fixed(core));
        let executor = builder.make().map_err(|error| error.to_string())?;
        executor.run(async move { make().await });
        Ok(())
    }

    async fn sleep_until(at_ns: u64) {
        Timer::new(clock::until(at_ns)).await;
    }
}

impl Local for Glommio {
    fn spawn(future: impl Future<Output = ()> + 'static) {
        spawn_local(future).detach();
    }

    async fn yield_now() {
        executor().yield_now().await;
    }
}
