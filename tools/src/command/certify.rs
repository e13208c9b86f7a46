//! `certify` and `verify`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use tailbeam_harness::certify::{
    self, CERTIFICATE, Judged, Policy, PolicyError, RunDirs, SHIPPED, Signer, Verifier,
};
use tailbeam_harness::evidence::{DOCUMENT, Documents, Store, rfc3339};

use super::Outcome;
use crate::Failure;
use crate::args::Format;
use crate::certify_args::{CertifyArgs, VerifyArgs};
use crate::render::{certify as text, json};

pub(crate) fn certify(args: &CertifyArgs, root: &Path, out: &mut dyn Write) -> Outcome {
    if let Some(name) = &args.print_policy {
        return print_policy(name, out);
    }
    if let Some(file) = &args.new_key {
        return new_key(file, out);
    }
    let policy = policy(&args.policy)?;
    let first = policy.runs.first().map(|run| run.name.clone()).unwrap_or_default();
    let given = args.first.iter().map(|run| (first.clone(), run.clone()));
    let dirs = dirs(given.chain(args.run.iter().cloned()), &args.series, root)?;
    // The key is looked at first: a judgement that takes minutes must not end in a wrong path.
    let signer = args.key.as_deref().map(signer).transpose()?;
    let judged = certify::judge(&policy, &dirs).map_err(judge_failure)?;
    let signed = match signer {
        Some(signer) => Some(sign(&judged, &dirs, home(&policy, &dirs)?, &signer)?),
        None => None,
    };
    if let Some(file) = &args.junit {
        write_junit(&judged, file)?;
    }
    match args.format {
        Format::Table => text::judged(&judged, signed.as_deref(), out)?,
        Format::Json => json::document("tailbeam.certificate", &judged, out)?,
    }
    if args.github {
        text::github(&judged, out)?;
    }
    Ok(judged.verdict.exit_code())
}

pub(crate) fn verify(args: &VerifyArgs, root: &Path, out: &mut dyn Write) -> Outcome {
    let pem = read(&args.key, "the public key")?;
    let trusted = Verifier::from_pem(&pem).map_err(|error| unusable(&args.key, error))?;
    let path = certificate(args, root)?;
    let envelope = fs::read(&path).map_err(|error| {
        Failure::new(1, format!("cannot read {}\n  cause: {error}\n  remedy: `tailbeam certify RUN --key FILE` issues a certificate", path.display()))
    })?;
    let name = args.first_name.clone().or_else(|| first_name(&envelope, &trusted));
    let name = name.unwrap_or_else(|| "soak".to_owned());
    let given = args.first.iter().map(|run| (name.clone(), run.clone()));
    let dirs = dirs(given.chain(args.run.iter().cloned()), &args.series, root)?;
    let wanted = args.policy.as_deref().map(|name| policy_as(name, Policy::read)).transpose()?;
    let verified = certify::verify(&envelope, &dirs, &trusted, wanted.as_ref());
    match args.format {
        Format::Table => text::verified(&verified, out)?,
        Format::Json => json::document("tailbeam.verification", &verified, out)?,
    }
    Ok(verified.verdict().map_or(6, |verdict| verdict.exit_code()))
}

/// Where the certificate is: with one of those that were given, whichever the policy names first.
fn certificate(args: &VerifyArgs, root: &Path) -> Result<PathBuf, Failure> {
    let runs = args.first.iter().chain(args.run.iter().map(|(_, run)| run));
    let mut homes = runs.map(|run| resolve(run, root)).collect::<Result<Vec<_>, _>>()?;
    for (_, series) in &args.series {
        homes.push(resolve_series(series, root)?);
    }
    let there = homes.iter().find(|home| home.join(CERTIFICATE).is_file());
    there.or(homes.first()).map(|home| home.join(CERTIFICATE)).ok_or_else(nothing)
}

/// The name that the certificate's policy has for its first run.
fn first_name(envelope: &[u8], trusted: &Verifier) -> Option<String> {
    let payload = trusted.open(envelope).ok()?;
    let statement: certify::Statement = serde_json::from_slice(&payload).ok()?;
    statement.predicate.judged.policy.runs.first().map(|run| run.name.clone())
}

fn policy(name: &str) -> Result<Policy, Failure> {
    policy_as(name, Policy::parse)
}

fn policy_as(name: &str, read: fn(&str) -> Result<Policy, PolicyError>) -> Result<Policy, Failure> {
    if let Some(policy) = Policy::shipped(name) {
        return Ok(policy);
    }
    let text = fs::read_to_string(name).map_err(|error| {
        Failure::new(2, format!("no policy {name:?}\n  cause: it is none of those shipped ({}), and as a file: {error}\n  remedy: `tailbeam certify --print-policy {}` prints one to begin with", shipped(), SHIPPED[0].0))
    })?;
    read(&text).map_err(|error| Failure::new(2, error))
}

fn shipped() -> String {
    SHIPPED.map(|(name, _)| name).join(", ")
}

fn print_policy(name: &str, out: &mut dyn Write) -> Outcome {
    let Some((_, text)) = SHIPPED.iter().find(|(shipped, _)| *shipped == name) else {
        return Err(Failure::new(
            2,
            format!(
                "no policy {name:?}\n  cause: shipped are: {}\n  remedy: name one of them",
                shipped()
            ),
        ));
    };
    out.write_all(text.as_bytes())?;
    Ok(0)
}

/// Random bytes come from the kernel; private keys are for their owner only and never overwritten.
fn new_key(file: &Path, out: &mut dyn Write) -> Outcome {
    let mut seed = [0u8; 32];
    let random = File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut seed));
    random.map_err(|error| Failure::new(1, format!("no random bytes\n  cause: /dev/urandom: {error}\n  remedy: mount /dev, or `openssl genpkey -algorithm ed25519`")))?;
    let signer = Signer::from_seed(&seed);
    let failed =
        |error| Failure::new(1, format!("{error}\n  remedy: `openssl genpkey -algorithm ed25519`"));
    let mut public = file.as_os_str().to_owned();
    public.push(".pub");
    write(file, signer.private_pem().map_err(failed)?.as_bytes(), 0o600)?;
    write(Path::new(&public), signer.verifier().pem().map_err(failed)?.as_bytes(), 0o644)?;
    writeln!(
        out,
        "key {}\n  private {}  (keep it; whoever has it can certify in your name)\n  public  {}",
        signer.verifier().key_id().map_err(failed)?,
        file.display(),
        Path::new(&public).display()
    )?;
    Ok(0)
}

/// Writes the JUnit file of this judgement over that of an earlier one: CI runs again and again.
fn write_junit(judged: &Judged, file: &Path) -> Result<(), Failure> {
    let failed = |cause: String| {
        let path = file.display();
        Failure::new(
            1,
            format!(
                "cannot write {path}\n  cause: {cause}\n  remedy: name a writable file, and gates in plain text"
            ),
        )
    };
    let xml = certify::junit(judged).map_err(failed)?;
    fs::write(file, xml).map_err(|error| failed(error.to_string()))
}

/// Writes a file that must not exist.
fn write(file: &Path, bytes: &[u8], mode: u32) -> Result<(), Failure> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(file);
    let written = opened.and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    written.map_err(|error| {
        let remedy = if error.kind() == io::ErrorKind::AlreadyExists {
            "name another file: nothing is overwritten"
        } else {
            "name a writable place"
        };
        Failure::new(
            1,
            format!("cannot write {}\n  cause: {error}\n  remedy: {remedy}", file.display()),
        )
    })
}

fn read(file: &Path, what: &str) -> Result<String, Failure> {
    fs::read_to_string(file).map_err(|error| {
        Failure::new(1, format!("cannot read {what} {}\n  cause: {error}\n  remedy: `tailbeam certify --new-key FILE` makes a pair, FILE and FILE.pub", file.display()))
    })
}

fn unusable(file: &Path, error: impl std::fmt::Display) -> Failure {
    Failure::new(
        2,
        format!(
            "cannot use {}\n  cause: {error}\n  remedy: `tailbeam certify --new-key FILE` makes a pair, FILE and FILE.pub",
            file.display()
        ),
    )
}

fn signer(file: &Path) -> Result<Signer, Failure> {
    Signer::from_pem(&read(file, "the private key")?).map_err(|error| unusable(file, error))
}

fn judge_failure(error: certify::CertifyError) -> Failure {
    let code = match &error {
        certify::CertifyError::Unasked { .. } => 2,
        certify::CertifyError::Read(read) if !read.is_corrupt() => 1,
        certify::CertifyError::Series(series) if !series.is_corrupt() => 1,
        _ => 6,
    };
    Failure::new(code, error)
}

/// The directory of a run of the store, or one that is named by its path.
fn resolve(name: &str, root: &Path) -> Result<PathBuf, Failure> {
    if Path::new(name).join("seg").is_dir() {
        return Ok(PathBuf::from(name));
    }
    Store::open_existing(root)
        .and_then(|store| store.resolve(name))
        .map_err(|error| Failure::new(1, error))
}

/// The directory of a series of the store, or one that is named by its path.
fn resolve_series(name: &str, root: &Path) -> Result<PathBuf, Failure> {
    if Path::new(name).join(DOCUMENT).is_file() {
        return Ok(PathBuf::from(name));
    }
    Store::open_existing(root)
        .and_then(|store| store.find_document(Documents::Chaos, name))
        .map_err(|error| Failure::new(1, error))
}

fn dirs(
    runs: impl Iterator<Item = (String, String)>,
    series: &[(String, String)],
    root: &Path,
) -> Result<RunDirs, Failure> {
    let runs = runs.map(|(name, run)| (name, resolve(&run, root)));
    let series = series.iter().map(|(name, of)| (name.clone(), resolve_series(of, root)));
    let mut dirs = RunDirs::new();
    for (name, dir) in runs.chain(series) {
        let dir = dir?;
        if dirs.insert(name.clone(), dir).is_some() {
            return Err(Failure::new(
                2,
                format!(
                    "{name:?} is given twice\n  cause: a policy judges one run or series by each name\n  remedy: name it once"
                ),
            ));
        }
    }
    Ok(dirs)
}

fn nothing() -> Failure {
    Failure::new(
        2,
        "nothing to certify\n  cause: neither run nor series was given\n  remedy: name one",
    )
}

/// Where the certificate lies: with the first that was given, in the policy's order.
fn home<'d>(policy: &Policy, dirs: &'d RunDirs) -> Result<&'d Path, Failure> {
    let given = policy.home(dirs).and_then(|name| dirs.get(name));
    given.map(PathBuf::as_path).ok_or_else(nothing)
}

/// Signs and puts the certificate into a directory: beside it, synced, then renamed.
fn sign(judged: &Judged, dirs: &RunDirs, dir: &Path, signer: &Signer) -> Result<String, Failure> {
    let issued = rfc3339(tailbeam_probes::clock::realtime_ns());
    let statement = certify::statement(judged.clone(), dirs, &issued)
        .map_err(|error| Failure::new(6, error))?;
    let payload = serde_json::to_vec(&statement).map_err(io::Error::from)?;
    let envelope = signer.sign(&payload).map_err(|error| Failure::new(1, error))?;
    let path = dir.join(CERTIFICATE);
    let beside = dir.with_extension(format!("certificate-{}.tmp", std::process::id()));
    write(&beside, &envelope.bytes(), 0o644)?;
    fs::rename(&beside, &path).and_then(|()| File::open(dir)?.sync_all()).map_err(|error| {
        Failure::new(
            1,
            format!(
                "cannot write {}\n  cause: {error}\n  remedy: make the directory writable",
                path.display()
            ),
        )
    })?;
    let key = signer.verifier().key_id().map_err(|error| Failure::new(1, error))?;
    Ok(format!(
        "{} files hashed, signed by key {key}\n  {}",
        statement.subject.len(),
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use tailbeam_harness::certify::Policy;

    use crate::command::chaos::subject_plan;

    /// The runs of the shipped policy are called as the presets that they are to be.
    #[test]
    fn the_shipped_policy_needs_the_presets_that_it_names() {
        let policy = Policy::shipped("lighthouse-sla").unwrap();
        for need in &policy.runs {
            assert!(need.plan.len() > 5, "{need:?}");
            let of = |flags: &[&str]| {
                let preset = ["--preset", need.name.as_str(), "--workload", "elicitation"];
                let flags: Vec<String> =
                    preset.iter().chain(flags).map(ToString::to_string).collect();
                let plan = subject_plan(&flags, crate::workloads![crate::Secure]);
                need.unlike(&plan.map_err(|failure| failure.text).unwrap())
            };
            assert_eq!(of(&[]), Vec::<String>::new());
            for other in ["--limits stock", "--delay 0ms", "--targets ring"] {
                let other: Vec<&str> = other.split(' ').collect();
                assert!(!of(&other).is_empty(), "{other:?}");
            }
        }
    }
}
