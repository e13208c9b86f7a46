//! Objects by address, for blocks that lie where the allocator put them: large ones, and all of them
//! in exact mode.
//!
//! Each address has two buckets of eight; both are looked through whole, so a removal leaves no mark.
//! Nobody looks an address up before its insertion has ended: a block is freed after it was given out.

use std::sync::atomic::{AtomicU32, Ordering};

use super::sample::mix;
use crate::collect::words::Words;

const BUCKET: usize = 8;

pub(super) struct Addresses {
    keys: Words,
    objects: Words,
    buckets: usize,
}

impl Addresses {
    /// Room for `objects` at half load.
    pub(super) fn new(objects: usize) -> std::io::Result<Addresses> {
        let buckets = (objects * 2).div_ceil(BUCKET).next_power_of_two().max(2);
        let keys = Words::anonymous(buckets * BUCKET)?;
        Ok(Addresses { keys, objects: Words::anonymous(buckets * BUCKET / 2)?, buckets })
    }

    /// Notes that `object` lies at `address`; false when both buckets are full.
    pub(super) fn insert(&self, address: u64, object: u32) -> bool {
        let free = |at: &usize| {
            let key = &self.keys[*at];
            key.load(Ordering::Relaxed) == 0
                && key.compare_exchange(0, address, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        match self.places(address).find(free) {
            Some(at) => {
                self.object(at).store(object, Ordering::Relaxed);
                true
            }
            None => false,
        }
    }

    /// Takes the note of an address away.
    pub(super) fn remove(&self, address: u64) -> Option<u32> {
        let at =
            self.places(address).find(|&at| self.keys[at].load(Ordering::Relaxed) == address)?;
        let object = self.object(at).load(Ordering::Relaxed);
        // Release: the next insertion stores its object after ours was read.
        let gone = self.keys[at].compare_exchange(address, 0, Ordering::Release, Ordering::Relaxed);
        gone.is_ok().then_some(object)
    }

    /// Bytes of the tables.
    pub(super) fn private_bytes(&self) -> u64 {
        (self.keys.len() + self.objects.len()) as u64 * 8
    }

    fn object(&self, at: usize) -> &AtomicU32 {
        &self.objects.halves()[at]
    }

    fn places(&self, address: u64) -> impl Iterator<Item = usize> {
        let hash = mix(address);
        let mask = self.buckets as u64 - 1;
        let start = |bucket: u64| usize::try_from(bucket & mask).expect("below the table") * BUCKET;
        let (first, second) = (start(hash), start(hash >> 32));
        (first..first + BUCKET).chain(second..second + BUCKET)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_at_the_load_that_is_promised() {
        let table = Addresses::new(10_000).expect("memory");
        let address = |i: u64| 0x7f00_0000_0000 + i * 48;
        for i in 0..10_000 {
            assert!(table.insert(address(i), u32::try_from(i).unwrap()), "{i}");
        }
        for i in (0..10_000).rev() {
            assert_eq!(table.remove(address(i)), Some(u32::try_from(i).unwrap()));
            assert_eq!(table.remove(address(i)), None);
        }
    }
}
