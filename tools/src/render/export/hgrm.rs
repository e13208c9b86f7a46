//! The latency of a whole run as an HdrHistogram percentile distribution (`.hgrm`), in ms: what HdrHistogram's plotter and
//! its Java tools (`outputPercentileDistribution`, 5 ticks per half distance) read and write.

use std::io::{self, Write};

use hdrhistogram::Histogram as Hdr;
use hdrhistogram::serialization::Deserializer;
use tailbeam_harness::evidence::{Interval, Intervals};
use tailbeam_harness::load::Series;
use tailbeam_probes::stats::Histogram;

/// Ticks per half distance: HdrHistogram's own default.
const TICKS: u32 = 5;
const NS_PER_MS: f64 = 1e6;

/// Writes the system latency of every window that `wanted` takes; returns how many there were.
///
/// # Errors
/// Those of `out`; and no request was timed.
pub fn write(
    intervals: &mut Intervals,
    wanted: &mut dyn FnMut(&Interval) -> bool,
    out: &mut dyn Write,
) -> io::Result<u64> {
    let (mut all, mut windows) = (Histogram::new(), 0);
    for interval in intervals.by_ref().filter(|interval| wanted(interval)) {
        windows += 1;
        let own = interval.histograms.iter().filter(|(_, of, _)| *of == Series::System);
        own.for_each(|(_, _, histogram)| all.merge(histogram));
    }
    if all.count() == 0 {
        let none = "no request was timed in that range, so there is no distribution";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, none));
    }
    distribution(&all, out)?;
    Ok(windows)
}

fn distribution(all: &Histogram, out: &mut dyn Write) -> io::Result<()> {
    let hdr: Hdr<u64> = Deserializer::new()
        .deserialize(&mut all.v2().as_slice())
        .expect("these bytes were just made by the same library");
    writeln!(
        out,
        "{:>12} {:>14} {:>10} {:>14}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    )?;
    let mut total = 0;
    for step in hdr.iter_quantiles(TICKS) {
        total += step.count_since_last_iteration();
        // A bucket's upper end may lie above the exact maximum.
        let ns = step.value_iterated_to().min(all.max().unwrap_or(u64::MAX));
        let (ms, quantile) = (ns as f64 / NS_PER_MS, step.quantile_iterated_to());
        write!(out, "{ms:12.6} {quantile:2.12} {total:10}")?;
        match quantile < 1.0 {
            true => writeln!(out, " {:14.2}", 1.0 / (1.0 - quantile))?,
            false => writeln!(out)?,
        }
    }
    let mean = all.mean().unwrap_or_default() / NS_PER_MS;
    let max = all.max().unwrap_or_default() as f64 / NS_PER_MS;
    writeln!(out, "#[Mean    = {mean:12.6}, StdDeviation   = {:12.6}]", hdr.stdev() / NS_PER_MS)?;
    writeln!(out, "#[Max     = {max:12.6}, Total count    = {:12}]", hdr.len())?;
    let halves = 2 * 10u64.pow(u32::from(hdr.sigfig()));
    let (buckets, sub) = (hdr.buckets(), halves.next_power_of_two());
    writeln!(out, "#[Buckets = {buckets:12}, SubBuckets     = {sub:12}]")?;
    if all.overflow() > 0 {
        writeln!(out, "# {} values above 3600 s are in no line", all.overflow())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_rise_to_the_maximum_and_every_value_is_counted() {
        let mut all = Histogram::new();
        (1..=10_000u64).for_each(|of| all.record(of * 1_000));
        let mut out = Vec::new();
        distribution(&all, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let rows: Vec<Vec<f64>> = text
            .lines()
            .skip(2)
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().map(|word| word.parse().unwrap()).collect())
            .collect();
        assert!(rows.windows(2).all(|two| two[0][..3].iter().zip(&two[1]).all(|(a, b)| a <= b)));
        let half = rows.iter().find(|row| row[1] >= 0.5).unwrap();
        assert!((half[0] - 5.0).abs() < 0.01 && (half[2] - 5_000.0).abs() <= 8.0, "{half:?}");
        let last = rows.last().unwrap();
        assert_eq!((last[0], last[1], last[2], last.len()), (10.0, 1.0, 10_000.0, 3));
        assert!(text.contains("Total count    =        10000]"), "{text}");
    }
}
