//! HdrHistogram interval log (format 1.3, histograms V2 deflated): one line per window, series and core, in
//! ns, with tags `<series>.all` and `<series>.core<CPU>`. `HistogramLogProcessor`, Python's, Java's and
//! JavaScript's readers take it.

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram as Hdr;
use hdrhistogram::serialization::interval_log::{
    IntervalLogWriter, IntervalLogWriterBuilder, IntervalLogWriterError, Tag,
};
use hdrhistogram::serialization::{Deserializer, V2DeflateSerializeError, V2DeflateSerializer};
use tailbeam_harness::evidence::{Interval, Intervals};
use tailbeam_harness::load::Series;
use tailbeam_probes::stats::Histogram;

/// The maximum of a line is shown in ms, as HdrHistogram's own tools do.
const MAX_DIVISOR: f64 = 1e6;

type Error = IntervalLogWriterError<V2DeflateSerializeError>;

/// Writes every window that `wanted` takes; returns how many there were.
///
/// # Errors
/// Those of `out`.
pub fn write(
    intervals: &mut Intervals,
    wanted: &mut dyn FnMut(&Interval) -> bool,
    out: &mut dyn Write,
) -> io::Result<u64> {
    let manifest = intervals.manifest.clone();
    let start = SystemTime::UNIX_EPOCH + Duration::from_nanos(manifest.started_unix_ns);
    let mut serializer = V2DeflateSerializer::new();
    let mut windows = 0;
    {
        let mut out = &mut *out;
        let mut log = IntervalLogWriterBuilder::new()
            .add_comment(&format!("[Logged with tailbeam {}]", env!("CARGO_PKG_VERSION")))
            .add_comment(&format!("run {}, {}", manifest.id, manifest.host))
            .add_comment("values in ns; system = end to end less the planned delay")
            .with_start_time(start)
            .with_base_time(start)
            .with_max_value_divisor(MAX_DIVISOR)
            .begin_log_with(&mut out, &mut serializer)
            .map_err(failed_head)?;
        for interval in intervals.by_ref() {
            let Some((from_ns, to_ns)) = interval.extent_ns() else { continue };
            if !wanted(&interval) {
                continue;
            }
            windows += 1;
            let from = Duration::from_nanos(from_ns.saturating_sub(manifest.start_ns));
            let extent = (from, Duration::from_nanos(to_ns - from_ns));
            window(&interval, extent, &manifest.cores, &mut log).map_err(failed)?;
        }
    }
    Ok(windows)
}

fn window<W: Write>(
    interval: &Interval,
    extent: (Duration, Duration),
    cores: &[u64],
    log: &mut IntervalLogWriter<'_, '_, W, V2DeflateSerializer>,
) -> Result<(), Error> {
    for series in Series::ALL {
        let own = || interval.histograms.iter().filter(move |(_, of, _)| *of == series);
        let mut all = Histogram::new();
        own().for_each(|(_, _, histogram)| all.merge(histogram));
        if all.count() == 0 {
            continue;
        }
        line(&all, &format!("{}.all", series.name()), extent, log)?;
        for (shard, _, histogram) in own() {
            let shard = usize::from(*shard);
            let core = cores.get(shard).copied().unwrap_or(shard as u64);
            line(histogram, &format!("{}.core{core}", series.name()), extent, log)?;
        }
    }
    Ok(())
}

fn line<W: Write>(
    histogram: &Histogram,
    tag: &str,
    (from, length): (Duration, Duration),
    log: &mut IntervalLogWriter<'_, '_, W, V2DeflateSerializer>,
) -> Result<(), Error> {
    if histogram.overflow() > 0 {
        let text = format!("{tag}: {} values above 3600 s are in no line", histogram.overflow());
        log.write_comment(&text)?;
    }
    let hdr: Hdr<u64> = Deserializer::new()
        .deserialize(&mut histogram.v2().as_slice())
        .expect("these bytes were just made by the same library");
    log.write_histogram(&hdr, from, length, Tag::new(tag))
}

fn failed(error: Error) -> io::Error {
    match error {
        IntervalLogWriterError::IoError(error) => error,
        IntervalLogWriterError::SerializeError(error) => io::Error::other(error.to_string()),
    }
}

fn failed_head(error: io::Error) -> io::Error {
    error
}
