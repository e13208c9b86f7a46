//! Medians and spreads of a handful of rounds.

/// Median; of an even number the mean of the middle two. None of nothing.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(values[middle - 1], upper))
}

/// Median, smallest and largest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// Values.
    pub(crate) count: usize,
}

/// The spread of values; none of nothing.
pub(crate) fn spread(values: Vec<f64>) -> Option<Spread> {
    let count = values.len();
    let min = values.iter().copied().min_by(f64::total_cmp)?;
    let max = values.iter().copied().max_by(f64::total_cmp)?;
    Some(Spread { median: median(values)?, min, max, count })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn a_spread_has_its_ends() {
        let expected = Spread { median: 2.0, min: 1.0, max: 9.0, count: 3 };
        assert_eq!(spread(vec![9.0, 1.0, 2.0]), Some(expected));
        assert_eq!(spread(Vec::new()), None);
    }
}
