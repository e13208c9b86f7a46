//! Samples as the kernel writes them; pure.
//!
//! Layout with IP, TID, TIME, CPU and CALLCHAIN (perf_event_open(2)): ip u64, pid u32, tid u32, time u64,
//! cpu u32, reserved u32, number u64, then so many addresses. Among these are marks that say whose the
//! next ones are.

/// `PERF_RECORD_LOST`.
const LOST: u32 = 2;
/// `PERF_RECORD_THROTTLE`.
const THROTTLE: u32 = 5;
/// `PERF_RECORD_SAMPLE`.
const SAMPLE: u32 = 9;

/// `PERF_CONTEXT_KERNEL`.
const KERNEL: u64 = 0u64.wrapping_sub(128);
/// `PERF_CONTEXT_USER`.
const USER: u64 = 0u64.wrapping_sub(512);
/// `PERF_CONTEXT_MAX`: all marks lie from here up.
const MARKS: u64 = 0u64.wrapping_sub(4_095);

/// Addresses of a chain that are kept; the kernel walks 127 unless told otherwise, user and kernel each
/// within it.
pub const CHAIN_MAX: usize = 128;

/// Bytes before the number of addresses.
const HEAD: usize = 32;
/// Bytes of a body that are read: all of a chain of the kernel's default with its marks.
pub(super) const BODY_MAX: usize = HEAD + 8 + 8 * (CHAIN_MAX + 8);

/// Where a thread was: addresses from the innermost outwards.
#[derive(Debug, Clone, Copy)]
pub struct Chain {
    addresses: [u64; CHAIN_MAX],
    length: usize,
    kernel: usize,
    cut: bool,
}

impl Default for Chain {
    fn default() -> Self {
        Self { addresses: [0; CHAIN_MAX], length: 0, kernel: 0, cut: false }
    }
}

impl Chain {
    /// Addresses in the kernel; empty when the thread was in user space, or the kernel is not ours to see.
    #[must_use]
    pub fn kernel(&self) -> &[u64] {
        &self.addresses[..self.kernel]
    }

    /// Addresses in user space.
    #[must_use]
    pub fn user(&self) -> &[u64] {
        &self.addresses[self.kernel..self.length]
    }

    /// There were more.
    #[must_use]
    pub const fn cut(&self) -> bool {
        self.cut
    }

    fn fill(&mut self, addresses: impl Iterator<Item = u64>) {
        (self.length, self.kernel, self.cut) = (0, 0, false);
        let mut user = false;
        for address in addresses {
            match address {
                KERNEL => user = false,
                USER => user = true,
                // Marks of guests: whose addresses follow is nothing that we could name.
                MARKS.. => {}
                _ if self.length == CHAIN_MAX => self.cut = true,
                _ => {
                    self.addresses[self.length] = address;
                    self.length += 1;
                    if !user {
                        self.kernel = self.length;
                    }
                }
            }
        }
    }
}

/// A sample.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'a> {
    /// The thread.
    pub thread: i32,
    /// When, ns of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// On which CPU.
    pub cpu: u32,
    /// Where.
    pub chain: &'a Chain,
}

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parsed {
    Sample { process: u32, thread: i32, at_ns: u64, cpu: u32 },
    Lost(u64),
    Throttled,
    Other,
    Broken,
}

/// Copies a record's one or two parts as far as they are read; how much that is.
pub(super) fn gather(parts: &[&[u8]], into: &mut [u8; BODY_MAX]) -> usize {
    let mut length = 0;
    for part in parts {
        let room = part.len().min(BODY_MAX - length);
        into[length..length + room].copy_from_slice(&part[..room]);
        length += room;
    }
    length
}

fn word(body: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(body.get(at..at + 8)?.try_into().ok()?))
}

fn half(body: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(body.get(at..at + 4)?.try_into().ok()?))
}

/// Reads a record; of a sample also its chain.
pub(super) fn parse(kind: u32, body: &[u8], chain: &mut Chain) -> Parsed {
    match kind {
        LOST => word(body, 8).map_or(Parsed::Broken, Parsed::Lost),
        THROTTLE => Parsed::Throttled,
        SAMPLE => sample(body, chain).unwrap_or(Parsed::Broken),
        _ => Parsed::Other,
    }
}

fn sample(body: &[u8], chain: &mut Chain) -> Option<Parsed> {
    let (process, thread) = (half(body, 8)?, half(body, 12)?.cast_signed());
    let (at_ns, cpu, number) = (word(body, 16)?, half(body, 24)?, word(body, HEAD)?);
    let there = (body.len() - HEAD - 8) / 8;
    let number = usize::try_from(number).ok()?;
    if number > there && body.len() < BODY_MAX {
        return None;
    }
    chain.fill((0..number.min(there)).map_while(|place| word(body, HEAD + 8 + 8 * place)));
    chain.cut |= number > there;
    Some(Parsed::Sample { process, thread, at_ns, cpu })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(addresses: &[u64]) -> Vec<u8> {
        let words = [0xabc, 7 | 9 << 32, 1_234, 3, addresses.len() as u64];
        words.iter().chain(addresses).flat_map(|word| word.to_ne_bytes()).collect()
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_sample_has_a_place_in_kernel_and_user_space() {
        let mut chain = Chain::default();
        let text = body(&[KERNEL, 11, 12, USER, 21, 22, 23]);
        let parsed = parse(SAMPLE, &text, &mut chain);
        assert_eq!(parsed, Parsed::Sample { process: 7, thread: 9, at_ns: 1_234, cpu: 3 });
        assert_eq!((chain.kernel(), chain.user()), (&[11, 12][..], &[21, 22, 23][..]));
        assert!(!chain.cut());
        parse(SAMPLE, &body(&[USER, 5]), &mut chain);
        assert_eq!((chain.kernel(), chain.user()), (&[][..], &[5][..]));
        for length in 0..text.len() {
            let parsed = parse(SAMPLE, &text[..length], &mut chain);
            assert_eq!(parsed, Parsed::Broken, "{length}");
        }
    }

    #[test]
    fn a_chain_that_is_too_long_is_cut_and_says_so() {
        let mut chain = Chain::default();
        let long: Vec<u64> = std::iter::once(USER).chain(1..=CHAIN_MAX as u64 + 5).collect();
        let mut cut = [0; BODY_MAX];
        let length = gather(&[&body(&long)], &mut cut);
        assert!(matches!(parse(SAMPLE, &cut[..length], &mut chain), Parsed::Sample { .. }));
        assert!(chain.cut() && chain.user().len() == CHAIN_MAX);
        let longer: Vec<u64> = (1..=2 * CHAIN_MAX as u64).collect();
        let length = gather(&[&body(&longer)], &mut cut);
        assert!(matches!(parse(SAMPLE, &cut[..length], &mut chain), Parsed::Sample { .. }));
        assert!(chain.cut());
    }

    #[test]
    fn other_records() {
        let mut chain = Chain::default();
        let lost: Vec<u8> = [1u64, 5].iter().flat_map(|word| word.to_ne_bytes()).collect();
        assert_eq!(parse(LOST, &lost, &mut chain), Parsed::Lost(5));
        assert_eq!(parse(LOST, &lost[..12], &mut chain), Parsed::Broken);
        assert_eq!(parse(THROTTLE, &[], &mut chain), Parsed::Throttled);
        assert_eq!(parse(6, &[], &mut chain), Parsed::Other);
    }
}
