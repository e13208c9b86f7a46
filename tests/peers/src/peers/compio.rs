//! compio on io_uring, a runtime per core, default settings.

use ::compio::runtime::{Runtime, spawn, time};

use super::actors::{Executor, Local};
use super::ready_again;
use crate::clock;

/// The runtime of one core.
pub(crate) struct Compio;

impl Executor for Compio {
    fn run<F: Future<Output = ()> + 'static>(
        _: usize,
        make: impl FnOnce() -> F,
    ) -> Result<(), String> {
        let runtime = Runtime::new().map_err(|error| error.to_string())?;
        runtime.block_on(async move { make().await });
        Ok(())
    }

    fn sleep_until(at_ns: u64) -> impl Future<Output = ()> {
        time::sleep_until(clock::instant(at_ns))
    }
}

impl Local for Compio {
    fn spawn(future: impl Future<Output = ()> + 'static) {
        spawn(future).detach();
    }

    /// It has no yield of its own.
    fn yield_now() -> impl Future<Output = ()> {
        ready_again()
    }
}
