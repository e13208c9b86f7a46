//! The smallest workload: a number that is answered at once. What is left is the runtime and the harness.

use tailbeam_runtime::Cx;

use super::exchange::ReplyTo;
use super::workload::{AgentInfo, Settled, Workload};
use crate::plan::Span;

/// An agent that answers a number with the next one.
#[derive(Debug)]
pub struct Ask {
    asked: u64,
}

impl Workload for Ask {
    const NAME: &'static str = "ask";
    const ABOUT: &'static str = "a number, answered at once: what runtime and harness alone can do";
    const DELAY: Span = Span::ms(0, 0);
    type Request = u64;
    type Reply = u64;

    fn new(info: AgentInfo) -> Self {
        Self { asked: u64::from(info.index) }
    }

    fn request(&mut self, k: u64) -> u64 {
        self.asked = k;
        k
    }

    async fn serve(&mut self, number: u64, reply: ReplyTo<Self>, cx: &mut Cx<'_>) {
        reply.send(cx, number.wrapping_add(1));
    }

    fn settle(&mut self, number: u64) -> Settled {
        // Several may be open at once: of the last one the answer is known to be no larger.
        if number == 0 || number > self.asked.wrapping_add(1) {
            Settled::Error
        } else {
            Settled::Ok
        }
    }
}
