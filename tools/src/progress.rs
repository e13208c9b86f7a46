//! Progress on stderr: a bar on a terminal, one line every ten seconds elsewhere.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rounded and bounded just before; Rust casts of floats saturate"
)]

use std::io::Write;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tailbeam_harness::drive::Progress;

use crate::args::ProgressMode;
use crate::render::units::{bytes, count, time};

/// Seconds between two plain lines.
const PLAIN_S: f64 = 10.0;

/// What has been shown so far.
pub(crate) struct Shown {
    bar: Option<ProgressBar>,
    plain: bool,
    next_s: f64,
}

impl Shown {
    pub(crate) fn new(mode: ProgressMode, terminal: bool) -> Self {
        let bar = match mode {
            ProgressMode::Bar => true,
            ProgressMode::Auto => terminal,
            ProgressMode::Plain | ProgressMode::None => false,
        };
        let style = || {
            ProgressStyle::with_template("{bar:30} {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar())
        };
        Self {
            bar: bar.then(|| {
                ProgressBar::with_draw_target(Some(1_000), ProgressDrawTarget::stderr())
                    .with_style(style())
            }),
            plain: !bar && mode != ProgressMode::None,
            next_s: 0.0,
        }
    }

    pub(crate) fn show(&mut self, progress: &Progress, err: &mut dyn Write) {
        let line = progress.event.clone().unwrap_or_else(|| line(progress));
        if let Some(bar) = &self.bar {
            let share = (progress.elapsed_s / progress.planned_s.max(1e-9)).clamp(0.0, 1.0);
            if progress.event.is_some() {
                bar.println(line);
            } else {
                bar.set_position((share * 1_000.0) as u64);
                bar.set_message(line);
            }
        } else if self.plain && (progress.event.is_some() || progress.elapsed_s >= self.next_s) {
            if progress.event.is_none() {
                self.next_s = progress.elapsed_s + PLAIN_S - 0.5;
            }
            // Progress that cannot be written is not worth ending a run for.
            let _ = writeln!(err, "{line}");
        }
    }

    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn line(p: &Progress) -> String {
    let mut line = format!(
        "{:>4.0} s / {:.0} s  {}  {} agents  {}/s offered  {}/s served  {} open",
        p.elapsed_s,
        p.planned_s,
        p.phase,
        count(p.live_agents),
        count(p.attempts_per_s.round() as u64),
        count(p.served_per_s.round() as u64),
        count(p.open),
    );
    if let (Some(p50), Some(p99), Some(max)) = (p.p50_ns, p.p99_ns, p.max_ns) {
        line.push_str(&format!(
            "  last second p50 {} p99 {} max {}",
            time(p50 as f64),
            time(p99 as f64),
            time(max as f64)
        ));
    }
    if let Some(rss) = p.rss_bytes {
        line.push_str(&format!("  rss {}", bytes(rss as f64)));
    }
    line
}
