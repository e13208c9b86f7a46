//! Figures as people read them: three significant digits and a unit.

fn three(value: f64) -> String {
    match value {
        v if v >= 99.95 => format!("{v:.0}"),
        v if v >= 9.995 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// Nanoseconds with an SI unit.
#[must_use]
pub fn time(ns: f64) -> String {
    match ns {
        v if v < 999.5 => format!("{v:.0} ns"),
        v if v < 999.5e3 => format!("{} us", three(v / 1e3)),
        v if v < 999.5e6 => format!("{} ms", three(v / 1e6)),
        v => format!("{} s", three(v / 1e9)),
    }
}

/// Bytes with an IEC unit.
#[must_use]
pub fn bytes(value: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut scaled = value;
    let mut unit = 0;
    while scaled >= 1023.5 && unit + 1 < units.len() {
        scaled /= 1_024.0;
        unit += 1;
    }
    if unit == 0 { format!("{value:.0} B") } else { format!("{} {}", three(scaled), units[unit]) }
}

/// A count with thousands separators.
#[must_use]
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Seconds as a person says them.
#[must_use]
pub fn span(seconds: f64) -> String {
    match seconds {
        s if s < 99.5 => format!("{} s", three(s)),
        s if s < 5_970.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3_600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_a_unit() {
        assert_eq!(time(950.0), "950 ns");
        assert_eq!(time(1_234.0), "1.23 us");
        assert_eq!(time(299_960_000.0), "300 ms");
        assert_eq!(time(5.0e9), "5.00 s");
        assert_eq!(bytes(512.0), "512 B");
        assert_eq!(bytes(1_536.0), "1.50 KiB");
        assert_eq!(
            [count(0), count(999), count(1_000), count(1_234_567)],
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(span(1_740.0), "29 min");
    }
}
