//! Flags of `certify` and `verify`.

use std::path::PathBuf;

use clap::Args;

use crate::args::Format;

#[derive(Debug, Args)]
pub(crate) struct CertifyArgs {
    /// Run that the policy names first: id, unique prefix, @last or @last~N
    #[arg(required_unless_present_any = ["run", "series", "print_policy", "new_key"])]
    pub(crate) first: Option<String>,
    /// Another run of the policy by its name there, as in compare=@last
    #[arg(long, value_name = "NAME=RUN", value_parser = named)]
    pub(crate) run: Vec<(String, String)>,
    /// Series of `chaos` of the policy by its name there, as in chaos=@last: id, unique prefix, @last, @last~N, or its directory
    #[arg(long, value_name = "NAME=SERIES", value_parser = named)]
    pub(crate) series: Vec<(String, String)>,
    /// Policy: one that is shipped, or a file
    #[arg(long, default_value = "lighthouse-sla", value_name = "NAME|FILE")]
    pub(crate) policy: String,
    /// Private Ed25519 key in PEM; without one nothing is signed and nothing is written
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Write JUnit XML, a test case per gate
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
    /// Print a GitHub annotation per gate that does not pass
    #[arg(long)]
    pub(crate) github: bool,
    /// Print a shipped policy and stop
    #[arg(long, value_name = "NAME", conflicts_with_all = ["first", "run", "series", "key"])]
    pub(crate) print_policy: Option<String>,
    /// Make a key pair, FILE and FILE.pub, and stop
    #[arg(long, value_name = "FILE", conflicts_with_all = ["first", "run", "series", "key"])]
    pub(crate) new_key: Option<PathBuf>,
    /// Format
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Run with the certificate: id, unique prefix, @last, @last~N, or its directory; without one it is that of the first --series
    #[arg(required_unless_present = "series")]
    pub(crate) first: Option<String>,
    /// Public Ed25519 key in PEM of whoever you trust to certify
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
    /// Another run of the certificate by its name there
    #[arg(long, value_name = "NAME=RUN", value_parser = named)]
    pub(crate) run: Vec<(String, String)>,
    /// Series of `chaos` of the certificate by its name there, as in chaos=@last
    #[arg(long, value_name = "NAME=SERIES", value_parser = named)]
    pub(crate) series: Vec<(String, String)>,
    /// Policy that it must be under: one that is shipped, or a file; without one any, but under a shipped one's name that one
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) policy: Option<String>,
    /// Name that the first run has in the policy; the policy's first when not given
    #[arg(long, value_name = "NAME", requires = "first")]
    pub(crate) first_name: Option<String>,
    /// Format
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,
}

fn named(text: &str) -> Result<(String, String), String> {
    let (name, run) =
        text.split_once('=').ok_or_else(|| format!("{text:?} is not NAME=RUN or NAME=SERIES"))?;
    if name.is_empty() || run.is_empty() {
        return Err(format!("{text:?} lacks a name, or what has it"));
    }
    Ok((name.to_owned(), run.to_owned()))
}
