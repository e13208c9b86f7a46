//! tokio, a current_thread runtime per core with its timers on, as `#[tokio::main]` makes it.

use ::tokio::runtime::{Builder, LocalOptions};
use ::tokio::task::{spawn_local, yield_now};

use super::actors::{Executor, Local};
use crate::clock;

/// The runtime of one core. A `LocalRuntime` is the current_thread scheduler; its tasks need not be `Send`.
pub(crate) struct CurrentThread;

impl Executor for CurrentThread {
    fn run<F: Future<Output = ()> + 'static>(
        _: usize,
        make: impl FnOnce() -> F,
    ) -> Result<(), String> {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .build_local(LocalOptions::default())
            .map_err(|error| error.to_string())?;
        runtime.block_on(async move { make().await });
        Ok(())
    }

    fn sleep_until(at_ns: u64) -> impl Future<Output = ()> {
        ::tokio::time::sleep_until(clock::instant(at_ns).into())
    }
}

impl Local for CurrentThread {
    fn spawn(future: impl Future<Output = ()> + 'static) {
        drop(spawn_local(future));
    }

    fn yield_now() -> impl Future<Output = ()> {
        yield_now()
    }
}
