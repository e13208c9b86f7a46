//! Records of a ring that also follows what a program starts; pure.
//!
//! Beside samples: files mapped as code, names, forks, ends and switches. With `sample_id_all` each of
//! them ends with {pid u32, tid u32, time u64, cpu u32, reserved u32}.

use super::sample::{self, Chain, Parsed};

/// Bytes of a record that are read: the longest is a mapping with a path of `PATH_MAX`.
pub(super) const RECORD_MAX: usize = 72 + 4_096 + 32;
/// Bytes of the identity behind each record that is no sample.
const IDENTITY: usize = 24;

const COMM: u32 = 3;
const EXIT: u32 = 4;
const FORK: u32 = 7;
const MMAP2: u32 = 10;
const SWITCH: u32 = 14;
/// `PERF_RECORD_MISC_COMM_EXEC` and `PERF_RECORD_MISC_SWITCH_OUT`.
const BIT_13: u16 = 1 << 13;
/// `PERF_RECORD_MISC_SWITCH_OUT_PREEMPT` and `PERF_RECORD_MISC_MMAP_BUILD_ID`.
const BIT_14: u16 = 1 << 14;

/// What a record says, with what it refers to owned: records of all rings are sorted by time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// The thread was here.
    Sample {
        /// CPU.
        cpu: u32,
        /// Addresses in the kernel, innermost first.
        kernel: Vec<u64>,
        /// Addresses in user space, innermost first.
        user: Vec<u64>,
        /// There were more.
        cut: bool,
    },
    /// The process maps a file as code.
    Map {
        /// First address.
        from: u64,
        /// Bytes.
        len: u64,
        /// Offset in the file.
        offset: u64,
        /// The file; `//anon`, `[vdso]` and the like are none.
        path: String,
        /// Its GNU build-id; empty where it has none or the kernel did not look.
        build_id: Vec<u8>,
    },
    /// The thread is called so.
    Name {
        /// The name.
        name: String,
        /// It executes another program: what was mapped is gone.
        exec: bool,
    },
    /// The thread began.
    Began {
        /// Process of the thread that made it.
        parent: u32,
        /// That thread.
        by: u32,
    },
    /// The thread ended.
    Ended,
    /// The thread left its CPU.
    Left {
        /// It could have run on.
        preempted: bool,
    },
    /// The thread came back to a CPU.
    Came,
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When, ns of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// Process.
    pub process: u32,
    /// Thread.
    pub thread: u32,
    /// What.
    pub told: Told,
}

/// An event, or what the ring says of itself.
pub(super) enum Read {
    Event(Event),
    Own(Parsed),
}

fn word(body: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(body.get(at..at + 8)?.try_into().ok()?))
}

fn half(body: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(body.get(at..at + 4)?.try_into().ok()?))
}

/// Text up to the first zero.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// Reads a record's body.
pub(super) fn read(kind: u32, misc: u16, body: &[u8], chain: &mut Chain) -> Read {
    let told = match kind {
        COMM | EXIT | FORK | MMAP2 | SWITCH => told(kind, misc, body),
        _ => {
            return match sample::parse(kind, body, chain) {
                Parsed::Sample { process, thread, at_ns, cpu } => {
                    let (kernel, user) = (chain.kernel().to_vec(), chain.user().to_vec());
                    let told = Told::Sample { cpu, kernel, user, cut: chain.cut() };
                    Read::Event(Event { at_ns, process, thread: thread.cast_unsigned(), told })
                }
                other => Read::Own(other),
            };
        }
    };
    told.map_or(Read::Own(Parsed::Broken), Read::Event)
}

fn told(kind: u32, misc: u16, body: &[u8]) -> Option<Event> {
    let at = body.len().checked_sub(IDENTITY)?;
    let (front, identity) = body.split_at(at);
    let (process, thread) = (half(identity, 0)?, half(identity, 4)?);
    let at_ns = word(identity, 8)?;
    // Whom a record is about stands in front where it is not the one that ran.
    let (process, thread, told) = match kind {
        COMM => {
            let told = Told::Name { name: text(front.get(8..)?), exec: misc & BIT_13 != 0 };
            (half(front, 0)?, half(front, 4)?, told)
        }
        FORK => {
            let told = Told::Began { parent: half(front, 4)?, by: half(front, 12)? };
            (half(front, 0)?, half(front, 8)?, told)
        }
        EXIT => (half(front, 0)?, half(front, 8)?, Told::Ended),
        MMAP2 => (half(front, 0)?, half(front, 4)?, map(misc, front)?),
        _ if misc & BIT_13 != 0 => (process, thread, Told::Left { preempted: misc & BIT_14 != 0 }),
        _ => (process, thread, Told::Came),
    };
    Some(Event { at_ns, process, thread, told })
}

fn map(misc: u16, front: &[u8]) -> Option<Told> {
    let build_id = if misc & BIT_14 == 0 {
        Vec::new()
    } else {
        let length = usize::from(*front.get(32)?).min(20);
        front.get(36..36 + length)?.to_vec()
    };
    Some(Told::Map {
        from: word(front, 8)?,
        len: word(front, 16)?,
        offset: word(front, 24)?,
        path: text(front.get(64..)?),
        build_id,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(front: &[u8]) -> Vec<u8> {
        let mut body = front.to_vec();
        for half in [5u32, 6] {
            body.extend(half.to_ne_bytes());
        }
        body.extend(99u64.to_ne_bytes());
        body.extend([1, 0, 0, 0, 0, 0, 0, 0]);
        body
    }

    fn halves(values: &[u32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_ne_bytes()).collect()
    }

    fn event(kind: u32, misc: u16, front: &[u8]) -> Option<Event> {
        match read(kind, misc, &body(front), &mut Chain::default()) {
            Read::Event(event) => Some(event),
            Read::Own(_) => None,
        }
    }

    #[test]
    fn records_say_whom_they_are_about() {
        let mut front = halves(&[7, 8]);
        front.extend(b"worker\0\0");
        let name = event(COMM, BIT_13, &front).unwrap();
        assert_eq!((name.process, name.thread, name.at_ns), (7, 8, 99));
        assert_eq!(name.told, Told::Name { name: "worker".to_owned(), exec: true });
        let mut fork = halves(&[10, 5, 11, 6]);
        fork.extend(98u64.to_ne_bytes());
        let fork = event(FORK, 0, &fork).unwrap();
        assert_eq!(
            (fork.process, fork.thread, fork.told),
            (10, 11, Told::Began { parent: 5, by: 6 })
        );
        let switch = event(SWITCH, BIT_13 | BIT_14, &[]).unwrap();
        assert_eq!((switch.thread, switch.told), (6, Told::Left { preempted: true }));
        assert_eq!(event(SWITCH, 0, &[]).unwrap().told, Told::Came);
        assert_eq!(event(FORK, 0, &[1, 2]), None, "too short");
    }

    #[test]
    fn a_mapping_has_a_build_id_only_where_its_bit_says_so() {
        let mut front = halves(&[7, 8]);
        for word in [0x1000u64, 0x2000, 0x3000] {
            front.extend(word.to_ne_bytes());
        }
        front.extend([4, 0, 0, 0, 1, 2, 3, 4]);
        front.resize(64, 0);
        front.extend(b"/bin/x\0\0");
        let of = |misc| match event(MMAP2, misc, &front).unwrap().told {
            Told::Map { from, len, offset, path, build_id } => {
                assert_eq!((from, len, offset, &*path), (0x1000, 0x2000, 0x3000, "/bin/x"));
                build_id
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(of(BIT_14), [1, 2, 3, 4]);
        assert_eq!(of(0), [0u8; 0]);
    }
}
