//! Readings that a test wrote down.

use super::CounterBackend;
use super::kind::Support;
use super::reading::Reading;

/// Gives prepared readings one after the other, and the last for ever.
#[derive(Debug)]
pub struct Scripted {
    support: Support,
    readings: Vec<Reading>,
    next: usize,
}

impl Scripted {
    /// Gives `readings` in order.
    #[must_use]
    pub const fn new(support: Support, readings: Vec<Reading>) -> Self {
        Self { support, readings, next: 0 }
    }
}

impl CounterBackend for Scripted {
    fn support(&self) -> &Support {
        &self.support
    }

    fn read(&mut self, at_ns: u64, into: &mut Reading) {
        let last = self.readings.len().saturating_sub(1);
        let reading = self.readings.get(self.next.min(last)).copied().unwrap_or_default();
        *into = Reading { at_ns, ..reading };
        self.next = self.next.saturating_add(1);
    }
}
