//! Records of a ring of switches, and the intervals off the CPU that they bound; pure.
//!
//! Layout (perf_event_open(2)): a header of type u32, misc u16, size u16; of LOST then an id and a count;
//! of SWITCH nothing; and at the end, as we ask for TID, TIME and CPU with sample_id_all: pid u32, tid u32,
//! time u64, cpu u32, reserved u32.

/// `PERF_RECORD_LOST`.
const LOST: u32 = 2;
/// `PERF_RECORD_SWITCH`.
const SWITCH: u32 = 14;
/// `PERF_RECORD_MISC_SWITCH_OUT`; without it the thread comes.
const MISC_OUT: u16 = 1 << 13;
/// `PERF_RECORD_MISC_SWITCH_OUT_PREEMPT`: it goes and could run.
const MISC_PREEMPT: u16 = 1 << 14;

/// Bytes of the part that ends each record.
const TAIL: usize = 24;
/// Bytes of the longest body that is read: LOST with its end.
pub(super) const BODY_MAX: usize = 16 + TAIL;

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    /// The thread left its CPU.
    Out {
        /// When, ns of `CLOCK_MONOTONIC`.
        at_ns: u64,
        /// It could have run on.
        preempted: bool,
        /// The CPU that it left.
        cpu: u32,
    },
    /// The thread came to a CPU.
    In {
        /// When, ns of `CLOCK_MONOTONIC`.
        at_ns: u64,
        /// The CPU that it came to.
        cpu: u32,
    },
    /// The ring was full for so many records.
    Lost(u64),
    /// Something else that the kernel may write into any ring.
    Other,
    /// Too short for what it says it is.
    Broken,
}

impl Record {
    /// Reads the body of a record that `kind` and `misc` introduce.
    #[must_use]
    pub fn parse(kind: u32, misc: u16, body: &[u8]) -> Self {
        let word = |at: usize| -> Option<u64> {
            Some(u64::from_ne_bytes(body.get(at..at + 8)?.try_into().ok()?))
        };
        match kind {
            LOST => word(8).map_or(Self::Broken, Self::Lost),
            SWITCH => {
                let Some(tail) = body.len().checked_sub(TAIL) else { return Self::Broken };
                let cpu = body.get(tail + 16..tail + 20).and_then(|bytes| bytes.try_into().ok());
                let Some((at_ns, cpu)) = word(tail + 8).zip(cpu.map(u32::from_ne_bytes)) else {
                    return Self::Broken;
                };
                if misc & MISC_OUT == 0 {
                    Self::In { at_ns, cpu }
                } else {
                    Self::Out { at_ns, preempted: misc & MISC_PREEMPT != 0, cpu }
                }
            }
            _ => Self::Other,
        }
    }
}

/// An interval in which the thread was on no CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffCpu {
    /// When it left, ns of `CLOCK_MONOTONIC`.
    pub from_ns: u64,
    /// When it came back, ns.
    pub to_ns: u64,
    /// It could have run: another took its CPU, or it yielded. Else it waited for something.
    pub preempted: bool,
    /// It came back to another CPU.
    pub moved: bool,
}

/// Makes intervals of records, and counts what it cannot pair.
#[derive(Debug, Clone, Default)]
pub(super) struct Pairing {
    out: Option<(u64, bool, u32)>,
    /// Until the first record: a ring begins in the middle of a thread's life.
    begun: bool,
    pub(super) lost: u64,
    pub(super) unpaired: u64,
    pub(super) broken: u64,
}

impl Pairing {
    /// Takes the next record; an interval when it ends one.
    pub(super) fn take(&mut self, record: Record) -> Option<OffCpu> {
        let begun = std::mem::replace(&mut self.begun, true);
        match record {
            Record::Out { at_ns, preempted, cpu } => {
                let before = self.out.replace((at_ns, preempted, cpu));
                self.unpaired += u64::from(before.is_some());
                None
            }
            Record::In { at_ns, cpu } => {
                let Some((from_ns, preempted, left)) = self.out.take() else {
                    self.unpaired += u64::from(begun);
                    return None;
                };
                if at_ns < from_ns {
                    self.broken += 1;
                    return None;
                }
                Some(OffCpu { from_ns, to_ns: at_ns, preempted, moved: left != cpu })
            }
            Record::Lost(count) => {
                self.lost = self.lost.saturating_add(count);
                // What is missing may be the end of this interval and the begin of another.
                self.unpaired += u64::from(self.out.take().is_some());
                self.begun = false;
                None
            }
            Record::Other => None,
            Record::Broken => {
                self.broken += 1;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(at_ns: u64, cpu: u32) -> Vec<u8> {
        let mut bytes = vec![0; 8];
        bytes.extend_from_slice(&at_ns.to_ne_bytes());
        bytes.extend_from_slice(&u64::from(cpu).to_ne_bytes());
        bytes
    }

    #[test]
    fn records_are_read_from_their_end() {
        let out = Record::parse(SWITCH, MISC_OUT | MISC_PREEMPT, &tail(5, 3));
        assert_eq!(out, Record::Out { at_ns: 5, preempted: true, cpu: 3 });
        assert_eq!(
            Record::parse(SWITCH, MISC_OUT, &tail(5, 3)),
            Record::Out { at_ns: 5, preempted: false, cpu: 3 }
        );
        assert_eq!(Record::parse(SWITCH, 0, &tail(9, 1)), Record::In { at_ns: 9, cpu: 1 });
        let mut lost = vec![0; 8];
        lost.extend_from_slice(&77u64.to_ne_bytes());
        lost.extend_from_slice(&tail(9, 1));
        assert_eq!(Record::parse(LOST, 0, &lost), Record::Lost(77));
        assert_eq!(Record::parse(5, 0, &[]), Record::Other);
        for short in 0..TAIL {
            assert_eq!(Record::parse(SWITCH, 0, &tail(9, 1)[..short]), Record::Broken);
        }
        assert_eq!(Record::parse(LOST, 0, &lost[..15]), Record::Broken);
    }

    fn out(at_ns: u64) -> Record {
        Record::Out { at_ns, preempted: false, cpu: 0 }
    }

    fn back(at_ns: u64, cpu: u32) -> Record {
        Record::In { at_ns, cpu }
    }

    #[test]
    fn intervals_are_from_out_to_in() {
        let mut pairing = Pairing::default();
        assert_eq!(pairing.take(back(1, 0)), None);
        assert_eq!(pairing.unpaired, 0, "the ring begins while the thread is away");
        assert_eq!(pairing.take(out(10)), None);
        let interval = OffCpu { from_ns: 10, to_ns: 30, preempted: false, moved: true };
        assert_eq!(pairing.take(back(30, 1)), Some(interval));
        assert_eq!(pairing.take(Record::Other), None);
        assert_eq!((pairing.lost, pairing.unpaired, pairing.broken), (0, 0, 0));
    }

    #[test]
    fn what_is_lost_is_counted_and_never_bridged() {
        let mut pairing = Pairing::default();
        pairing.take(out(10));
        pairing.take(Record::Lost(4));
        assert_eq!(pairing.take(back(900, 0)), None, "890 ns would be an invention");
        assert_eq!((pairing.lost, pairing.unpaired), (4, 1));
        pairing.take(out(1_000));
        pairing.take(out(1_100));
        assert_eq!(pairing.unpaired, 2);
        assert!(pairing.take(back(1_200, 0)).is_some());
        pairing.take(back(1_300, 0));
        assert_eq!(pairing.unpaired, 3);
        pairing.take(out(2_000));
        assert_eq!(pairing.take(back(1_999, 0)), None);
        pairing.take(Record::Broken);
        assert_eq!(pairing.broken, 2);
    }
}
