//! What the process that begun last found damaged in the logs that it goes on with: words of each core, written before any
//! agent is there.

use std::sync::atomic::Ordering::Relaxed;

use super::Board;

/// Where a core says how many places are damaged, and the first of them in two words each.
const DAMAGED: usize = 8;
const PLACES: usize = 9;
/// Places that are told; behind them only their number is.
pub const PLACES_MAX: usize = 11;
pub(super) const END: usize = PLACES + 2 * PLACES_MAX;
/// Nobody knows which event is missing.
const NO_EVENT: u64 = u64::MAX;

/// A place in a log that is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Segment.
    pub segment: u32,
    /// Byte offset.
    pub byte: u32,
    /// Number of the first event that is missing there.
    pub event: Option<u64>,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { segment, byte, event } = self;
        write!(f, "segment {segment} at byte {byte}")?;
        event.map_or(Ok(()), |event| write!(f, ", event {event}"))
    }
}

/// What was found damaged in a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundDamage {
    /// Places, but for what a write leaves that was cut off.
    pub count: u64,
    /// The first [`PLACES_MAX`] of them, in the order of the log.
    pub places: Vec<Place>,
}

impl Board {
    /// A core's log is damaged at these places. Of a core that the board has not, nothing.
    pub fn set_damage(&self, core: u32, places: &[Place]) {
        if core >= self.shape.cores {
            return;
        }
        let says = self.says(core);
        for (words, place) in says[PLACES..END].chunks(2).zip(places) {
            words[0].store(u64::from(place.segment) << 32 | u64::from(place.byte), Relaxed);
            words[1].store(place.event.unwrap_or(NO_EVENT), Relaxed);
        }
        says[DAMAGED].store(places.len() as u64, Relaxed);
    }

    /// What it said.
    #[must_use]
    pub fn damage(&self, core: u32) -> FoundDamage {
        let says = self.says(core);
        let count = says[DAMAGED].load(Relaxed);
        let told = usize::try_from(count).unwrap_or(PLACES_MAX).min(PLACES_MAX);
        let half = |of: u64| u32::try_from(of & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        let places = says[PLACES..PLACES + 2 * told].chunks(2).map(|words| {
            let (place, event) = (words[0].load(Relaxed), words[1].load(Relaxed));
            let event = Some(event).filter(|event| *event != NO_EVENT);
            Place { segment: half(place >> 32), byte: half(place), event }
        });
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
        let two = [
            Place { segment: 3, byte: u32::MAX, event: Some(7) },
            Place { segment: u32::MAX, byte: 0, event: None },
        ];
        board.set_damage(1, &two);
        board.set_damage(2, &two);
        assert_eq!(board.damage(0), FoundDamage::default());
        assert_eq!(board.damage(1), FoundDamage { count: 2, places: two.to_vec() });
        let many: Vec<Place> =
            (0..15).map(|of| Place { segment: of, byte: of * 8, event: Some(0) }).collect();
        board.set_damage(0, &many);
        let told = many[..PLACES_MAX].to_vec();
        assert_eq!(board.damage(0), FoundDamage { count: 15, places: told });
        assert_eq!(board.damage(1).count, 2, "a neighbour's");
        board.set_damage(0, &[]);
        assert_eq!(board.damage(0), FoundDamage::default());
        assert_eq!(two[0].to_string(), "segment 3 at byte 4294967295, event 7");
    }
}
