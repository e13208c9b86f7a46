//! Unix time as text. Only formatting: the clock is read elsewhere.

/// Year, month, day of a count of days since 1970-01-01 (Howard Hinnant, "chrono-compatible low-level
/// date algorithms", `civil_from_days`).
const fn civil(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let era = z / 146_097;
    let doe = z % 146_097;
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + (month <= 2) as u64, month, day)
}

fn parts(unix_ns: u64) -> (u64, u64, u64, u64, u64, u64) {
    let s = unix_ns / 1_000_000_000;
    let (year, month, day) = civil(s / 86_400);
    let of_day = s % 86_400;
    (year, month, day, of_day / 3_600, of_day / 60 % 60, of_day % 60)
}

/// RFC 3339 UTC to the second.
#[must_use]
pub fn rfc3339(unix_ns: u64) -> String {
    let (y, mo, d, h, mi, s) = parts(unix_ns);
    format!("{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}Z")
}

/// RFC 3339 UTC to the millisecond.
#[must_use]
pub fn rfc3339_ms(unix_ns: u64) -> String {
    let second = rfc3339(unix_ns);
    format!("{}.{:03}Z", second.trim_end_matches('Z'), unix_ns / 1_000_000 % 1_000)
}

/// `YYYYMMDD-HHMMSS`: sorts by time and can be typed.
#[must_use]
pub(crate) fn compact_utc(unix_ns: u64) -> String {
    let (y, mo, d, h, mi, s) = parts(unix_ns);
    format!("{y:04}{mo:02}{d:02}-{h:02}{mi:02}{s:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        // date -u -d @951782400 and @1795503600
        assert_eq!(rfc3339(951_782_400_000_000_000), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339_ms(951_782_400_045_999_999), "2000-02-29T00:00:00.045Z");
        assert_eq!(compact_utc(1_795_503_600_000_000_000), "20261124-070000");
    }
}
