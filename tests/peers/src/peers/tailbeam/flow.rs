//! A stream of messages from core to core.

use tailbeam_runtime::{Addr, Agent, Cx, Runtime, Stop};

use super::{begin_on, run_on};
use crate::peers::Job;
use crate::peers::tasks::{Cell, STREAM};
use crate::sheet::Sheet;

/// Messages of one turn of the sender: what a shard runs between two looks at the other cores.
const BATCH: usize = 256;

struct Sink(&'static Sheet, u64);

impl Agent for Sink {
    type Msg = Cell;
    const MAILBOX: u32 = STREAM as u32;

    async fn on(&mut self, cell: Cell, _: &mut Cx<'_>) -> Result<(), Stop> {
        self.1 += std::hint::black_box(cell[0]);
        self.0.received(self.1);
        Ok(())
    }
}

/// Sends until it is refused or has had its share, then sends itself a message to go on.
struct Source(&'static Sheet, Addr<Sink>);

impl Agent for Source {
    type Msg = ();

    async fn on(&mut self, (): (), cx: &mut Cx<'_>) -> Result<(), Stop> {
        if !self.0.is_open() {
            return Err(Stop);
        }
        let mut left = BATCH;
        while left > 0 && self.1.try_send(cx, [1; 6]).is_ok() {
            left -= 1;
        }
        cx.me::<Self>().try_send(cx, ()).map_err(|_| Stop)
    }
}

/// A sender on the first core, a receiver on the second.
pub(super) fn begin(runtime: &Runtime, job: Job) -> Result<(), String> {
    let sink = run_on(runtime, 1, move |cx| cx.spawn(Sink(job.sheet, 0)).ok())?;
    let sink = sink.ok_or("the receiver could not be spawned")?;
    begin_on(runtime, 0, Source(job.sheet, sink), ()).map(|_| ())
}
