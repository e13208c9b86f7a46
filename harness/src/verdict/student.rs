//! Quantiles of Student's t and tails of the normal distribution.

use statrs::distribution::{ContinuousCDF as _, Normal, StudentsT};

/// Quantile of Student's t with `degrees` (at least 1) of freedom.
pub(crate) fn quantile(p: f64, degrees: f64) -> f64 {
    StudentsT::new(0.0, 1.0, degrees.max(1.0))
        .expect("the scale is 1 and the degrees are at least 1")
        .inverse_cdf(p)
}

/// Probability that a standard normal lies further from 0 than `z`, on either side.
pub(crate) fn two_sided(z: f64) -> f64 {
    let normal = Normal::new(0.0, 1.0).expect("the standard normal");
    (2.0 * normal.sf(z.abs())).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_points() {
        // Tables of Student's distribution.
        assert!((quantile(0.975, 5.0) - 2.5706).abs() < 1e-3);
        assert!((quantile(0.95, 1e6) - 1.6449).abs() < 1e-3);
        assert!((two_sided(1.96) - 0.05).abs() < 1e-4);
        assert!((two_sided(0.0) - 1.0).abs() < 1e-12);
    }
}
