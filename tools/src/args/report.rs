//! Flags of `report`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// How a report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    /// The short answer for a terminal
    Table,
    /// The whole report as text
    Text,
    /// The whole report as Markdown
    #[value(alias = "md")]
    Markdown,
    /// The whole report as one HTML file
    Html,
    /// The whole report as one JSON document
    Json,
}

impl ReportFormat {
    /// What a file's name asks for.
    fn of_file(path: &std::path::Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "html" | "htm" => Some(Self::Html),
            "md" | "markdown" => Some(Self::Markdown),
            "json" => Some(Self::Json),
            "txt" => Some(Self::Text),
            _ => None,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Id, unique prefix, @last, @last~N, @TAG, a run's directory, or a JSON document or certificate of ours
    #[arg(required_unless_present = "schema")]
    pub(crate) run: Option<String>,
    /// Gates instead of the plan's own
    #[arg(long, value_name = "GATES")]
    pub(crate) gate: Vec<String>,
    /// Format; what the name of the file says, otherwise table
    #[arg(long, value_enum)]
    format: Option<ReportFormat>,
    /// File; stdout when not given or `-`
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Print the JSON Schema of `--format json` and stop; with RUN that of a recorded program, if it is one
    #[arg(long)]
    pub(crate) schema: bool,
    /// Of a recorded program: directory with the files that ran, or their debug files; searched first
    #[arg(long, value_name = "DIR")]
    pub(crate) symbols: Vec<PathBuf>,
    /// Of a recorded program: rows of each table
    #[arg(long, default_value_t = 20)]
    pub(crate) top: usize,
}

impl ReportArgs {
    /// The format asked for, by flag or by the file's name.
    pub(crate) fn format(&self) -> ReportFormat {
        let by_file = || self.output.as_deref().and_then(ReportFormat::of_file);
        self.format.or_else(by_file).unwrap_or(ReportFormat::Table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_name_says_the_format() {
        let of = |name: &str| ReportFormat::of_file(std::path::Path::new(name));
        assert_eq!(of("r.html"), Some(ReportFormat::Html));
        assert_eq!(of("a/r.md"), Some(ReportFormat::Markdown));
        assert_eq!([of("r"), of("r.png"), of(".html")], [None, None, None]);
    }
}
