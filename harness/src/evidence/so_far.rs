//! What every agent has done over all epochs of a run, as far as it was written down: at the end of an epoch that ended
//! orderly, and from time to time of one that was cut.

use super::read::AgentNumbers;

/// Attempts and completions of each agent, by its index.
#[derive(Debug, Default)]
struct Counts {
    attempts: Vec<u32>,
    completions: Vec<u32>,
}

impl Counts {
    fn add(&mut self, attempts: &[u32], completions: &[u32]) {
        for (sum, part) in [(&mut self.attempts, attempts), (&mut self.completions, completions)] {
            sum.resize(sum.len().max(part.len()), 0);
            sum.iter_mut().zip(part).for_each(|(sum, part)| *sum = sum.saturating_add(*part));
        }
    }
}

/// Takes frames in order, and the beginnings of epochs.
#[derive(Debug, Default)]
pub(super) struct PerAgent {
    /// Of the epochs before.
    before: Counts,
    /// Of this epoch: at its end, and from time to time.
    sealed: AgentNumbers,
    so_far: Counts,
    epochs: u32,
}

/// Bounds the agents that a damaged frame can claim.
const AGENTS_MAX: usize = 1 << 24;

impl PerAgent {
    /// A PER_AGENT frame.
    pub(super) fn at_the_end(&mut self, payload: &[u8]) {
        self.sealed.add(payload);
    }

    /// A SO_FAR frame; `None` when it cannot be read. Each takes the place of what was said of its agents before.
    pub(super) fn so_far(&mut self, payload: &[u8]) -> Option<()> {
        let (head, rest) = payload.split_at_checked(8)?;
        let half = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let (shard, shards) = (usize::from(half(0)), usize::from(half(2)));
        let from = usize::try_from(u32::from_le_bytes(head[4..8].try_into().ok()?)).ok()?;
        let (counts, odd) = rest.as_chunks::<4>();
        if !odd.is_empty() || counts.len() % 2 != 0 || shard >= shards {
            return None;
        }
        let n = counts.len() / 2;
        let end = from.checked_add(n)?.checked_mul(shards).filter(|end| *end <= AGENTS_MAX)?;
        for (all, part) in [
            (&mut self.so_far.attempts, &counts[..n]),
            (&mut self.so_far.completions, &counts[n..]),
        ] {
            all.resize(all.len().max(end), 0);
            for (at, count) in part.iter().enumerate() {
                all[(from + at) * shards + shard] = u32::from_le_bytes(*count);
            }
        }
        Some(())
    }

    /// Another epoch begins.
    pub(super) fn epoch(&mut self) {
        self.epochs += 1;
        let (sealed, so_far) = (std::mem::take(&mut self.sealed), std::mem::take(&mut self.so_far));
        match (&sealed.attempts, &sealed.completions) {
            (Some(attempts), Some(completions)) => self.before.add(attempts, completions),
            _ => self.before.add(&so_far.attempts, &so_far.completions),
        }
    }

    /// What is known of a run of so many agents. Times are those of one epoch, so of several none is known.
    pub(super) fn finish(mut self, agents: u64) -> AgentNumbers {
        if self.epochs == 0 && self.sealed.completions.is_some() {
            return self.sealed;
        }
        self.epoch();
        let agents = usize::try_from(agents).unwrap_or(usize::MAX);
        let Counts { mut attempts, mut completions } = self.before;
        if attempts.is_empty() {
            return AgentNumbers::default();
        }
        // The last places of a table of unequal cores are nobody's.
        attempts.truncate(agents);
        completions.truncate(agents);
        AgentNumbers {
            attempts: Some(attempts),
            completions: Some(completions),
            ..AgentNumbers::default()
        }
    }
}

/// The payload of a SO_FAR frame: agents of a shard from a place on.
pub(crate) fn payload(
    (shard, shards): (u16, u16),
    from: u32,
    attempts: &[u32],
    completions: &[u32],
) -> Vec<u8> {
    let mut payload = Vec::with_capacity(8 + 4 * (attempts.len() + completions.len()));
    payload.extend_from_slice(&shard.to_le_bytes());
    payload.extend_from_slice(&shards.to_le_bytes());
    payload.extend_from_slice(&from.to_le_bytes());
    payload.extend(attempts.iter().chain(completions).flat_map(|count| count.to_le_bytes()));
    payload
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::records::per_agent;

    fn at_the_end(all: &mut PerAgent, counts: &[u32]) {
        for which in [per_agent::ATTEMPTS, per_agent::COMPLETIONS] {
            let mut payload = vec![which, 0, 0, 0];
            payload.extend(counts.iter().flat_map(|count| count.to_le_bytes()));
            all.at_the_end(&payload);
        }
    }

    fn seen(all: PerAgent, agents: u64) -> Option<Vec<u32>> {
        let numbers = all.finish(agents);
        assert_eq!(numbers.attempts.is_some(), numbers.completions.is_some());
        numbers.completions
    }

    #[test]
    fn epochs_are_summed_each_by_the_best_that_is_known_of_it() {
        let mut all = PerAgent::default();
        // Five agents on two cores, twice; the later word counts.
        for of in [1, 2] {
            all.so_far(&payload((0, 2), 0, &[9 * of; 3], &[of, 10 * of, 100 * of])).unwrap();
            all.so_far(&payload((1, 2), 0, &[9 * of; 2], &[3 * of, 30 * of])).unwrap();
        }
        all.epoch();
        at_the_end(&mut all, &[1, 1, 1, 1, 1]);
        assert_eq!(seen(all, 5), Some(vec![3, 7, 21, 61, 201]));
    }

    #[test]
    fn one_epoch_has_what_it_said_last() {
        let mut all = PerAgent::default();
        all.so_far(&payload((0, 1), 1, &[5, 6], &[3, 4])).unwrap();
        assert_eq!(seen(all, 3), Some(vec![0, 3, 4]));
        let mut all = PerAgent::default();
        all.so_far(&payload((0, 1), 0, &[5], &[3])).unwrap();
        at_the_end(&mut all, &[7]);
        assert_eq!(seen(all, 1), Some(vec![7]));
        assert_eq!(seen(PerAgent::default(), 5), None);
        let mut none = PerAgent::default();
        none.epoch();
        assert_eq!(seen(none, 5), None, "cut before anything was said, twice");
    }

    #[test]
    fn what_cannot_be_read_changes_nothing() {
        let mut all = PerAgent::default();
        let good = payload((0, 1), 0, &[5], &[3]);
        for bad in [
            &good[..7],
            &good[..12],
            &good[..15],
            &payload((1, 1), 0, &[5], &[3]),
            &payload((0, 0), 0, &[5], &[3]),
            &payload((0, 9), u32::MAX, &[5], &[3]),
        ] {
            assert_eq!(all.so_far(bad), None);
        }
        assert_eq!(seen(all, 1), None);
    }
}
