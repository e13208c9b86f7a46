//! The order of the rounds.

/// Which peers run in which order, round by round: forwards and backwards in turn, so that each pair of
/// rounds is balanced against a drift.
pub(crate) fn interleaved(peers: usize, rounds: usize) -> impl Iterator<Item = Vec<usize>> {
    (0..rounds).map(move |round| {
        let forward = 0..peers;
        if round % 2 == 0 { forward.collect() } else { forward.rev().collect() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_peer_runs_once_a_round_and_the_order_turns() {
        let rounds: Vec<_> = interleaved(3, 2).collect();
        assert_eq!(rounds, [vec![0, 1, 2], vec![2, 1, 0]]);
    }
}
