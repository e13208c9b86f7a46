//! monoio on io_uring, a runtime per core, default settings with timers.

use ::monoio::{IoUringDriver, RuntimeBuilder};

use super::actors::{Executor, Local};
use super::ready_again;
use crate::clock;

/// The runtime of one core.
pub(crate) struct Monoio;

impl Executor for Monoio {
    fn run<F: Future<Output = ()> + 'static>(
        _: usize,
        make: impl FnOnce() -> F,
    ) -> Result<(), String> {
        let mut runtime = RuntimeBuilder::<IoUringDriver>::new()
            .enable_timer()
            .build()
            .map_err(|error| error.to_string())?;
        runtime.block_on(async move { make().await });
        Ok(())
    }

    fn sleep_until(at_ns: u64) -> impl Future<Output = ()> {
        ::monoio::time::sleep_until(clock::instant(at_ns).into())
    }
}

impl Local for Monoio {
    fn spawn(future: impl Future<Output = ()> + 'static) {
        drop(::monoio::spawn(future));
    }

    /// It has no yield of its own.
    fn yield_now() -> impl Future<Output = ()> {
        ready_again()
    }
}
