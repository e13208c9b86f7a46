//! Flags of `export`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{SymbolArgs, duration};
use crate::render::export::pprof::Metric;
use crate::render::export::rows::Rows;

/// Format of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// profile.proto, gzipped: go tool pprof, speedscope, Pyroscope
    Pprof,
    /// Folded stacks: flamegraph.pl, inferno, speedscope
    Folded,
    /// Firefox Profiler
    Firefox,
    /// Latency for the Firefox Profiler: slow requests' stages, long turns, times off the CPU, counters
    Timeline,
    /// Latency as an HdrHistogram interval log
    Hlog,
    /// The run as OpenMetrics with time stamps: promtool tsdb create-blocks-from openmetrics
    Openmetrics,
    /// Windows as comma-separated values: pandas, DuckDB, spreadsheets
    Csv,
    /// Windows as JSON lines
    Jsonl,
    /// Windows as Apache Parquet: DuckDB, Polars, pandas
    Parquet,
    /// Latency of all windows as an HdrHistogram percentile distribution, ms
    Hgrm,
    /// The run's gates as JUnit XML: what shows test results
    Junit,
}

impl ExportFormat {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Pprof => "pprof",
            Self::Folded => "folded",
            Self::Firefox => "firefox",
            Self::Timeline => "timeline",
            Self::Hlog => "hlog",
            Self::Openmetrics => "openmetrics",
            Self::Csv => "csv",
            Self::Jsonl => "jsonl",
            Self::Parquet => "parquet",
            Self::Hgrm => "hgrm",
            Self::Junit => "junit",
        }
    }
}

impl ExportFormat {
    /// Whether it is of a run's load and latency, and not of a heap or a program.
    pub(crate) const fn is_latency(self) -> bool {
        matches!(
            self,
            Self::Timeline
                | Self::Hlog
                | Self::Openmetrics
                | Self::Csv
                | Self::Jsonl
                | Self::Parquet
                | Self::Hgrm
                | Self::Junit
        )
    }

    /// Whether it is nothing that a terminal can show.
    pub(crate) const fn is_binary(self) -> bool {
        matches!(self, Self::Pprof | Self::Parquet)
    }
}

/// What a row of CSV, JSON lines and Parquet is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportRows {
    /// A window: load, latency, memory
    Windows,
    /// A window and a core: latency, what the core did, counters
    Cores,
}

impl From<ExportRows> for Rows {
    fn from(rows: ExportRows) -> Self {
        match rows {
            ExportRows::Windows => Self::Windows,
            ExportRows::Cores => Self::Cores,
        }
    }
}

/// Value of a folded stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FoldedMetric {
    /// Bytes that live
    InuseSpace,
    /// Objects that live
    InuseObjects,
    /// Bytes allocated since the start
    AllocSpace,
    /// Objects allocated since the start
    AllocObjects,
}

impl From<FoldedMetric> for Metric {
    fn from(metric: FoldedMetric) -> Self {
        match metric {
            FoldedMetric::InuseSpace => Self::InuseSpace,
            FoldedMetric::InuseObjects => Self::InuseObjects,
            FoldedMetric::AllocSpace => Self::AllocSpace,
            FoldedMetric::AllocObjects => Self::AllocObjects,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Id, unique prefix, @last, @last~N, a directory with heap.tbh, or RUN@2h
    pub(crate) run: String,
    /// Format
    #[arg(long, visible_alias = "format", value_enum)]
    pub(crate) to: ExportFormat,
    /// The CPU profile, where a run has a heap as well
    #[arg(long, conflicts_with_all = ["base", "metric"])]
    pub(crate) cpu: bool,
    /// File; stdout when not given or `-`
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Run, or RUN@2h, to subtract
    #[arg(long, value_name = "RUN")]
    pub(crate) base: Option<String>,
    /// Value of folded stacks; pprof has all four
    #[arg(long, value_enum, default_value = "inuse-space")]
    pub(crate) metric: FoldedMetric,
    /// What a row of csv, jsonl and parquet is of
    #[arg(long, value_enum, default_value = "windows")]
    pub(crate) rows: ExportRows,
    /// Latency from this time after the start on; whole windows
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) from: Option<u64>,
    /// Latency up to this time after the start
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) until: Option<u64>,
    #[command(flatten)]
    pub(crate) how: SymbolArgs,
}
