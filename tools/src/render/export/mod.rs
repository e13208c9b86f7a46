//! A heap profile, a CPU profile, and latency over time, in the formats of other people's tools: functions over `Write`,
//! no file is opened here.

pub mod cpu;
pub mod cpu_firefox;
pub mod firefox;
pub mod folded;
pub mod hgrm;
pub mod hlog;
pub mod openmetrics;
pub mod pprof;
pub mod rows;
pub mod timeline;

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use tailbeam_probes::analyse::profile::HeapProfile;
use tailbeam_probes::record::heap::{HeapSnapshot, OWNER_NONE};

/// What every export carries beside the profile.
#[derive(Debug)]
pub struct Export<'a> {
    /// Run.
    pub run: &'a str,
    /// The snapshot that the profile was made of.
    pub snapshot: &'a HeapSnapshot,
    /// The profile, less its base where there is one.
    pub profile: &'a HeapProfile,
    /// Run and instant of the base, in words.
    pub base: Option<&'a str>,
    /// Word of the verdict by site.
    pub verdicts: &'a dyn Verdicts,
    /// What a reader must know: sampling, losses, symbols that are missing.
    pub comments: &'a [String],
}

/// The verdict on a site and on an owner's part of it.
pub trait Verdicts: std::fmt::Debug {
    /// The word, `None` where nothing was judged.
    fn word(&self, site: u32, owner: u32) -> Option<&'static str>;
}

/// Name of an owner: what the program called it, its number, or `(none)`.
#[must_use]
pub fn owner_name(snapshot: &HeapSnapshot, owner: u32) -> String {
    if owner == OWNER_NONE {
        return "(none)".to_owned();
    }
    let named = snapshot.owner_names.iter().find(|(of, _)| *of == owner);
    named.map_or_else(|| owner.to_string(), |(_, name)| name.clone())
}

/// Writes what `write` writes, gzipped.
///
/// # Errors
/// Those of `out`.
pub fn gzipped(
    out: &mut dyn Write,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let mut gz = GzEncoder::new(out, Compression::default());
    write(&mut gz)?;
    gz.finish()?;
    Ok(())
}
