//! glommio, an executor per core, default settings.

use ::glommio::timer::Timer;
use ::glommio::{LocalExecutorBuilder, Placement, executor, spawn_local};

use super::actors::{Executor, Local};
use super::{Begun, Job, Work, tasks};
use crate::clock;

/// The executor of one core.
pub(crate) struct Glommio;

/// Starts `work`.
pub(crate) fn begin(work: Work, job: Job) -> Result<Begun, String> {
    tasks::begin::<Glommio>(work, job)
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
