//! HdrHistogram's own Java reader of the interval log.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tailbeam::render::export::hlog;
use tailbeam_probes::stats::Histogram;

use super::latency::intervals;
use super::latency_fixture::Run;
use super::programs::{consumer, npm, run};

/// Prints, by tag: count, intervals, p50, p99, maximum.
const SOURCE: &str = r#"
import java.util.*;
import org.HdrHistogram.*;
public class Read {
  public static void main(String[] args) throws Exception {
    HistogramLogReader reader = new HistogramLogReader(args[0]);
    Map<String, Histogram> sums = new TreeMap<>();
    Map<String, Integer> intervals = new TreeMap<>();
    while (reader.hasNext()) {
      EncodableHistogram next = reader.nextIntervalHistogram();
      if (next == null) break;
      sums.computeIfAbsent(next.getTag(), tag -> new Histogram(3600L * 1000000000L, 3)).add((AbstractHistogram) next);
      intervals.merge(next.getTag(), 1, Integer::sum);
    }
    List<String> rows = new ArrayList<>();
    sums.forEach((tag, h) -> rows.add(String.format("\"%s\": [%d, %d, %d, %d, %d]", tag, h.getTotalCount(),
      intervals.get(tag), h.getValueAtPercentile(50), h.getValueAtPercentile(99), h.getMaxValue())));
    System.out.println("{" + String.join(",", rows) + "}");
  }
}
"#;

/// The library's archive, where there is a Java that compiles a file by itself.
fn library() -> Option<PathBuf> {
    let jar = npm().join("hdr/usr/share/java/hdrhistogram.jar");
    let java = Command::new("java").arg("-version").output().is_ok_and(|o| o.status.success());
    consumer("Java with libhdrhistogram-java", java && jar.exists()).then_some(jar)
}

#[test]
fn javas_hdrhistogram_reads_the_same_counts_and_percentiles() {
    let Some(jar) = library() else { return };
    let (dir, mut intervals) = intervals(|_| {});
    let path = dir.path().join("latency.hlog");
    hlog::write(&mut intervals, &mut |_| true, &mut File::create(&path).unwrap()).unwrap();
    let source = dir.path().join("Read.java");
    fs::write(&source, SOURCE).unwrap();
    let out = run(Command::new("java").arg("-cp").arg(jar).arg(&source).arg(&path));
    let found: Value = serde_json::from_str(&out).unwrap();
    let mut all = Histogram::new();
    for window in Run::new().windows {
        window.system.iter().for_each(|of| all.merge(of));
    }
    let row = &found["system.all"];
    assert_eq!((&row[0], &row[1]), (&all.count().into(), &6.into()), "{found}");
    let (max, exact) = (row[4].as_u64().unwrap(), all.max().unwrap());
    // Theirs is the upper end of a bucket; ours is never above the exact maximum.
    let percentile = |k: usize| row[k].as_u64().map(|ns| ns.min(exact));
    assert_eq!((percentile(2), percentile(3)), (all.quantile(0.5), all.quantile(0.99)));
    assert!(max >= exact && max - exact <= exact / 1_000, "{max} for {exact}");
    for core in ["system.core1", "system.core3"] {
        assert_eq!(found[core][0], 3_000, "{found}");
    }
}
