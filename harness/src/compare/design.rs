//! The design of a comparison, fixed before its first run: blocks, orders, seeds.

use serde::{Deserialize, Serialize};

use crate::load::{Draw, Stream};

/// Fewest pairs that a claim can rest on: the smallest number with a distribution-free 95 % interval of a
/// median, `1 - 2^(1-n)`.
pub const PAIRS_MIN: usize = 6;
/// Most pairs.
pub const PAIRS_MAX: usize = 1_000;

/// A side of a comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// What a reader calls it.
    pub name: String,
    /// The command line of its runs without the shared flags, or why there is none (stored runs).
    pub args: Vec<String>,
    /// The program, when it is not this one.
    pub program: Option<String>,
}

/// What a run of a block is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Side A.
    A,
    /// Side A again: with A it shows what a difference of nothing looks like here.
    A2,
    /// Side B.
    B,
}

/// One block: its runs have the same seed, and so the same schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Seed of every draw of its runs.
    pub seed: u64,
    /// Its runs in their order.
    pub order: Vec<Role>,
}

/// The blocks of a comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Design {
    /// Seed that orders and schedules are drawn from.
    pub seed: u64,
    /// Pairs wanted.
    pub pairs: usize,
    /// Of the blocks, those with A twice.
    pub aa: usize,
    /// The blocks: those wanted, and as many again for pairs that have to be left out.
    pub blocks: Vec<Block>,
}

/// Draws the design. A block is A and B in random order; in `aa` of them A runs twice.
#[must_use]
pub fn design(seed: u64, pairs: usize, aa: usize) -> Design {
    let draw = Draw::new(seed, 0);
    let blocks = (0..2 * pairs)
        .map(|block| {
            let k = block as u64;
            // The first `aa` blocks have it: which ones does not matter, as their order is random inside.
            let mut order = vec![Role::A, Role::B];
            if block < aa {
                order.push(Role::A2);
            }
            for last in (1..order.len()).rev() {
                let with = draw.below(8 * k + last as u64, Stream::Target, last as u64 + 1);
                order.swap(last, usize::try_from(with).expect("below three"));
            }
            Block { seed: seed.wrapping_add(k), order }
        })
        .collect();
    Design { seed, pairs, aa, blocks }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_block_has_both_sides_in_an_order_that_the_seed_draws() {
        let drawn = design(7, 200, 100);
        assert_eq!(drawn, design(7, 200, 100), "the same seed is the same design");
        assert_ne!(drawn.blocks, design(8, 200, 100).blocks);
        let firsts = drawn.blocks.iter().filter(|block| block.order[0] == Role::A).count();
        // 300 coins and 100 draws of three: 150 + 33 in the mean, deviation 9.8.
        assert!((140..=230).contains(&firsts), "{firsts} of 400 begin with A");
        for (k, block) in drawn.blocks.iter().enumerate() {
            let count = |role| block.order.iter().filter(|other| **other == role).count();
            assert_eq!((count(Role::A), count(Role::B)), (1, 1));
            assert_eq!(count(Role::A2), usize::from(k < 100));
            assert_eq!(block.seed, 7 + k as u64);
        }
    }
}
