//! What the process that begun last found damaged in the logs that it goes on with: words of each core, written before any
//! agent is there.

use std::sync::atomic::Ordering::Relaxed;

use super::Board;

/// Where a core says how many places are damaged, and the first of them.
const DAMAGED: usize = 8;
const PLACES: usize = 9;
/// Places that are told; behind them only their number is.
pub const PLACES_MAX: usize = 7;
pub(super) const END: usize = PLACES + PLACES_MAX;

/// What was found damaged in a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundDamage {
    /// Places, but for what a write leaves that was cut off.
    pub count: u64,
    /// Segment and byte offset of the first [`PLACES_MAX`] of them, in the order of the log.
    pub places: Vec<(u32, u32)>,
}

impl Board {
    /// A core's log is damaged at these places. Of a core that the board has not, nothing.
    pub fn set_damage(&self, core: u32, places: &[(u32, u32)]) {
        if core >= self.shape.cores {
            return;
        }
        let says = self.says(core);
        for (word, (segment, offset)) in says[PLACES..END].iter().zip(places) {
            word.store(u64::from(*segment) << 32 | u64::from(*offset), Relaxed);
        }
        says[DAMAGED].store(places.len() as u64, Relaxed);
    }

    /// What it said.
    #[must_use]
    pub fn damage(&self, core: u32) -> FoundDamage {
        let says = self.says(core);
        let count = says[DAMAGED].load(Relaxed);
        let told = usize::try_from(count).unwrap_or(PLACES_MAX).min(PLACES_MAX);
        let place = |word: u64| {
            let half = |of: u64| u32::try_from(of & u64::from(u32::MAX)).unwrap_or(u32::MAX);
            (half(word >> 32), half(word))
        };
        let places = says[PLACES..PLACES + told].iter().map(|word| place(word.load(Relaxed)));
        FoundDamage { count, places: places.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Shape;
    use super::*;

    #[test]
    fn places_are_told_as_far_as_there_is_room_and_counted_beyond() {
        let shape = Shape { cores: 2, slots: 1, slot_ns: 1, from_ns: 0 };
        let board = Board::create(shape, &[0; 32]).unwrap();
        board.set_damage(1, &[(3, u32::MAX), (u32::MAX, 0)]);
        board.set_damage(2, &[(1, 1)]);
        assert_eq!(board.damage(0), FoundDamage::default());
        assert_eq!(
            board.damage(1),
            FoundDamage { count: 2, places: vec![(3, u32::MAX), (u32::MAX, 0)] }
        );
        let many: Vec<(u32, u32)> = (0..9).map(|of| (of, of * 8)).collect();
        board.set_damage(0, &many);
        assert_eq!(board.damage(0), FoundDamage { count: 9, places: many[..PLACES_MAX].to_vec() });
        assert_eq!(board.damage(1).count, 2, "a neighbour's");
        board.set_damage(0, &[]);
        assert_eq!(board.damage(0), FoundDamage::default());
    }
}
