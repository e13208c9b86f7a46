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

/// Frames of one instant: they count when they are of every agent.
#[derive(Debug, Default)]
struct Set {
    mono_ns: u64,
    agents: usize,
    counts: Counts,
}

/// Takes frames in order, and the beginnings of epochs.
#[derive(Debug)]
pub(super) struct PerAgent {
    agents: usize,
    /// Of the epochs before.
    before: Counts,
    /// Of this epoch: at its end, and from time to time.
    sealed: AgentNumbers,
    so_far: Counts,
    /// What is told now; the one before holds until it is whole.
    telling: Set,
    epochs: u32,
}

impl PerAgent {
    /// Of a run of so many agents.
    pub(super) fn new(agents: u64) -> Self {
        Self {
            agents: usize::try_from(agents).unwrap_or(usize::MAX),
            before: Counts::default(),
            sealed: AgentNumbers::default(),
            so_far: Counts::default(),
            telling: Set::default(),
            epochs: 0,
        }
    }

    /// A PER_AGENT frame.
    pub(super) fn at_the_end(&mut self, payload: &[u8]) {
        self.sealed.add(payload);
    }

    /// A SO_FAR frame of an instant; `None` when it cannot be read. A set that was cut off counts nowhere: agents that it
    /// does not name would have done nothing.
    pub(super) fn so_far(&mut self, mono_ns: u64, payload: &[u8]) -> Option<()> {
        let (head, rest) = payload.split_at_checked(8)?;
        let half = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let (shard, shards) = (usize::from(half(0)), usize::from(half(2)));
        let from = usize::try_from(u32::from_le_bytes(head[4..8].try_into().ok()?)).ok()?;
        let (counts, odd) = rest.as_chunks::<4>();
        let n = counts.len() / 2;
        let last = (from + n.checked_sub(1)?).checked_mul(shards)?.checked_add(shard)?;
        if !odd.is_empty() || counts.len() % 2 != 0 || shard >= shards || last >= self.agents {
            return None;
        }
        if self.telling.mono_ns != mono_ns {
            let zeros = || vec![0; self.agents];
            let counts = Counts { attempts: zeros(), completions: zeros() };
            self.telling = Set { mono_ns, agents: 0, counts };
        }
        let telling = &mut self.telling.counts;
        for (all, part) in
            [(&mut telling.attempts, &counts[..n]), (&mut telling.completions, &counts[n..])]
        {
            for (at, count) in part.iter().enumerate() {
                all[(from + at) * shards + shard] = u32::from_le_bytes(*count);
            }
        }
        self.telling.agents += n;
        if self.telling.agents == self.agents {
            self.so_far = std::mem::take(&mut self.telling).counts;
        }
        Some(())
    }

    /// Another epoch begins.
    pub(super) fn epoch(&mut self) {
        self.epochs += 1;
        self.telling = Set::default();
        let (sealed, so_far) = (std::mem::take(&mut self.sealed), std::mem::take(&mut self.so_far));
        match (&sealed.attempts, &sealed.completions) {
            (Some(attempts), Some(completions))
                if attempts.len() == self.agents && completions.len() == self.agents =>
            {
                self.before.add(attempts, completions);
            }
            _ => self.before.add(&so_far.attempts, &so_far.completions),
        }
    }

    /// What is known. Times are those of one epoch, so of several none is known.
    pub(super) fn finish(mut self) -> AgentNumbers {
        if self.epochs == 0 && self.sealed.completions.as_ref().map(Vec::len) == Some(self.agents) {
            return self.sealed;
        }
        self.epoch();
        let Counts { attempts, completions } = self.before;
        if attempts.is_empty() {
            return AgentNumbers::default();
        }
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

    fn seen(all: PerAgent) -> Option<Vec<u32>> {
        let numbers = all.finish();
        assert_eq!(numbers.attempts.is_some(), numbers.completions.is_some());
        numbers.completions
    }

    /// Five agents on two cores, at an instant.
    fn five(all: &mut PerAgent, at: u32) {
        let at_ns = u64::from(at);
        let first = payload((0, 2), 0, &[9 * at; 3], &[at, 10 * at, 100 * at]);
        all.so_far(at_ns, &first).unwrap();
        all.so_far(at_ns, &payload((1, 2), 0, &[9 * at; 2], &[3 * at, 30 * at])).unwrap();
    }

    #[test]
    fn epochs_are_summed_each_by_the_best_that_is_known_of_it() {
        let mut all = PerAgent::new(5);
        // The later word counts.
        five(&mut all, 1);
        five(&mut all, 2);
        all.epoch();
        at_the_end(&mut all, &[1, 1, 1, 1, 1]);
        assert_eq!(seen(all), Some(vec![3, 7, 21, 61, 201]));
    }

    #[test]
    fn a_set_that_was_cut_off_counts_nowhere() {
        let mut all = PerAgent::new(5);
        all.so_far(1, &payload((0, 2), 0, &[9; 3], &[1, 10, 100])).unwrap();
        assert_eq!(seen(all), None, "two agents were not named");
        let mut all = PerAgent::new(5);
        five(&mut all, 1);
        all.so_far(2, &payload((0, 2), 0, &[9; 3], &[2, 20, 200])).unwrap();
        at_the_end(&mut all, &[7, 7, 7]);
        assert_eq!(seen(all), Some(vec![1, 3, 10, 30, 100]), "nor does an end of three agents");
    }

    #[test]
    fn one_epoch_has_what_it_said_last() {
        let mut all = PerAgent::new(1);
        all.so_far(1, &payload((0, 1), 0, &[5], &[3])).unwrap();
        at_the_end(&mut all, &[7]);
        assert_eq!(seen(all), Some(vec![7]));
        assert_eq!(seen(PerAgent::new(5)), None);
        let mut none = PerAgent::new(5);
        none.epoch();
        assert_eq!(seen(none), None, "cut before anything was said, twice");
    }

    #[test]
    fn what_cannot_be_read_changes_nothing() {
        let mut all = PerAgent::new(1);
        let good = payload((0, 1), 0, &[5], &[3]);
        for bad in [
            &good[..7],
            &good[..8],
            &good[..12],
            &good[..15],
            &payload((1, 1), 0, &[5], &[3]),
            &payload((0, 0), 0, &[5], &[3]),
            &payload((0, 1), 1, &[5], &[3]),
            &payload((0, 9), u32::MAX, &[5], &[3]),
        ] {
            assert_eq!(all.so_far(1, bad), None);
        }
        assert_eq!(seen(all), None);
    }
}
