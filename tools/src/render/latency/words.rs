//! Figures of latency in words.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rounded and bounded just before; Rust casts of floats saturate"
)]

use crate::render::units::{count, time};

/// Nanoseconds with a sign; what rounds to nothing has none.
pub(super) fn signed(ns: &f64) -> String {
    match ns.abs() {
        size if size < 0.5 => "0 ns".to_owned(),
        size => format!("{}{}", if *ns < 0.0 { '-' } else { '+' }, time(size)),
    }
}

/// A figure of a comparison in its unit.
pub(super) fn figure(value: Option<f64>, unit: &str) -> String {
    if let (Some(value), "share") = (value, unit) {
        return format!("{:.2} %", value * 100.0);
    }
    match (value, unit) {
        (None, _) => "-".to_owned(),
        (Some(ns), "ns") if ns < 0.0 => signed(&ns),
        (Some(ns), "ns") => time(ns),
        (Some(n), _) if n.fract() == 0.0 && n >= 0.0 => count(n as u64),
        (Some(n), _) => three(n),
    }
}

/// Three significant digits of what may be small.
fn three(n: f64) -> String {
    match n.abs() {
        size if size >= 100.0 => format!("{n:.0}"),
        size if size >= 10.0 => format!("{n:.1}"),
        size if size >= 0.995 => format!("{n:.2}"),
        size if size >= 0.0995 => format!("{n:.3}"),
        size if size >= 0.009_95 => format!("{n:.4}"),
        _ => format!("{n:.1e}"),
    }
}

/// The same with a sign.
pub(super) fn difference(value: Option<f64>, unit: &str) -> String {
    if let (Some(value), "share") = (value, unit) {
        return format!("{:+.2} %", value * 100.0);
    }
    match (value, unit) {
        (None, _) => "-".to_owned(),
        (Some(ns), "ns") => signed(&ns),
        (Some(0.0), _) => "0".to_owned(),
        (Some(n), _) if n > 0.0 => format!("+{}", three(n)),
        (Some(n), _) => three(n),
    }
}

/// A share in percent.
pub(super) fn percent(share: f64) -> String {
    match share * 100.0 {
        p if p > 0.0 && p < 0.05 => "<0.1 %".to_owned(),
        p if p < 9.95 || (99.0..99.95).contains(&p) => format!("{p:.1} %"),
        p => format!("{p:.0} %"),
    }
}

/// A bar of at most twenty columns, in eighths.
pub(super) fn bar(share: f64) -> String {
    const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let eighths = (share.clamp(0.0, 1.0) * 160.0).round() as usize;
    let mut bar = "█".repeat(eighths / 8);
    bar.push(EIGHTHS[eighths % 8]);
    bar.trim_end().to_owned()
}

/// Name of a stage as people read it.
pub(super) fn stage(name: &str) -> String {
    name.replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_as_people_say_them() {
        assert_eq!(
            [0.4, -0.4, 1.2e3, -7.0].map(|ns| signed(&ns)),
            ["0 ns", "0 ns", "+1.20 us", "-7 ns"]
        );
        assert_eq!(
            [0.0, 0.0001, 0.5, 0.995, 1.0].map(percent),
            ["0.0 %", "<0.1 %", "50 %", "99.5 %", "100 %"]
        );
        assert_eq!([0.0, 0.05, 0.056, 2.0].map(bar), ["", "█", "█▏", "████████████████████"]);
    }
}
