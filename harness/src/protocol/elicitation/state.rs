//! The states of an elicitation and the only function that moves between them.

/// Where an elicitation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum State {
    /// No terminal event yet.
    Pending = 0,
    /// Answered.
    Accepted = 1,
    /// The addressee declined.
    Declined = 2,
    /// The asker withdrew it.
    Cancelled = 3,
    /// Its deadline passed.
    Expired = 4,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Pending, Self::Accepted, Self::Declined, Self::Cancelled, Self::Expired];

    /// Whether nothing follows.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        !matches!(self, Self::Pending)
    }

    /// From its number on the wire.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|state| *state as u8 == number)
    }
}

/// What may end an elicitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// The addressee answers.
    Accept,
    /// The addressee says no.
    Decline,
    /// The asker withdraws.
    Cancel,
    /// The deadline passes.
    Expire,
}

impl Step {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Accept, Self::Decline, Self::Cancel, Self::Expire];
}

/// The state after a step.
///
/// # Errors
/// The terminal state that came before: there is exactly one.
pub const fn next(state: State, step: Step) -> Result<State, State> {
    match (state, step) {
        (State::Pending, Step::Accept) => Ok(State::Accepted),
        (State::Pending, Step::Decline) => Ok(State::Declined),
        (State::Pending, Step::Cancel) => Ok(State::Cancelled),
        (State::Pending, Step::Expire) => Ok(State::Expired),
        (terminal, _) => Err(terminal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_table() {
        for state in State::ALL {
            for (step, after) in Step::ALL.into_iter().zip(&State::ALL[1..]) {
                let expected = if state == State::Pending { Ok(*after) } else { Err(state) };
                assert_eq!(next(state, step), expected, "{state:?} {step:?}");
                assert!(next(state, step).is_err() || after.is_terminal());
            }
            assert_eq!(State::from_number(state as u8), Some(state));
        }
        assert_eq!(State::from_number(5), None);
    }
}
