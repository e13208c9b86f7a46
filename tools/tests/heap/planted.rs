//! Compiles the planted programs, runs them under `tailbeam record`, and reads what was recorded. Symbols
//! come from binutils' addr2line, not from us.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use tailbeam_probes::record::heap::HeapSnapshot;
use tailbeam_probes::record::heap_file;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_tailbeam");

/// Says that a test does not run here.
#[expect(clippy::print_stderr, reason = "a test that skips must say so")]
pub(crate) fn skip(why: &str) {
    eprintln!("SKIPPED: {why}");
}

/// Whether a tool is there; says that the test skips otherwise.
pub(crate) fn has(tool: &str, version: &str) -> bool {
    let tried = Command::new(tool).arg(version).stdin(Stdio::null()).output();
    let usable = tried.is_ok_and(|output| output.status.success());
    if !usable {
        skip(&format!("`{tool}` is not here"));
    }
    usable
}

pub(crate) fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/heap").join(name)
}

/// What a planted program said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Planted {
    pub(crate) bytes: u64,
    pub(crate) count: usize,
    pub(crate) site: String,
    /// Said by a child: its id.
    pub(crate) process: Option<u32>,
}

impl Planted {
    /// `planted BYTES COUNT FUNCTION` or `freed FUNCTION`, after `child PID` in a child.
    fn parse(line: &str) -> Option<Planted> {
        let mut words = line.split(' ').peekable();
        let process = words.next_if_eq(&"child").and_then(|_| words.next()?.parse().ok());
        let planted = match words.next()? {
            "planted" => (words.next()?.parse().ok()?, words.next()?.parse().ok()?),
            "freed" => (0, 0),
            _ => return None,
        };
        let site = words.next()?.to_owned();
        Some(Planted { bytes: planted.0, count: planted.1, site, process })
    }

    /// Compares with what is listed: bytes and functions of each block.
    pub(crate) fn check(&self, listed: &[(u64, Vec<String>)]) -> Result<(), String> {
        let of_site: Vec<u64> = listed
            .iter()
            .filter(|(_, functions)| functions.contains(&self.site))
            .map(|(bytes, _)| *bytes)
            .collect();
        let found = of_site.iter().filter(|&&bytes| bytes == self.bytes).count();
        if found == self.count {
            Ok(())
        } else {
            Err(format!("{self:?}: {found} found, blocks of the site have {of_site:?} bytes"))
        }
    }
}

/// What a planted program said.
pub(crate) fn planted(output: &Output) -> Vec<Planted> {
    String::from_utf8_lossy(&output.stdout).lines().filter_map(Planted::parse).collect()
}

/// A place to compile and record in.
pub(crate) struct Bench {
    pub(crate) dir: tempfile::TempDir,
}

impl Bench {
    /// None, and said, where there is no compiler or no glibc.
    pub(crate) fn new() -> Option<Bench> {
        if !cfg!(target_env = "gnu") {
            skip("the preloaded object needs glibc");
            return None;
        }
        let tools =
            has("cc", "--version") && has("c++", "--version") && has("addr2line", "--version");
        if !tools {
            return None;
        }
        object();
        Some(Bench { dir: tempfile::tempdir().unwrap() })
    }

    pub(crate) fn compile(&self, source: &Path, flags: &[&str]) -> PathBuf {
        let program = self.dir.path().join(source.file_stem().unwrap());
        let compiler = if source.extension().unwrap() == "cc" { "c++" } else { "cc" };
        let output = Command::new(compiler)
            .args(flags)
            .arg("-o")
            .arg(&program)
            .arg(source)
            .arg("-ldl")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        program
    }

    /// What the program prints without arguments.
    pub(crate) fn lines(&self, program: &Path) -> Vec<String> {
        let output = Command::new(program).output().unwrap();
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    /// Records; returns the run's directory as well.
    pub(crate) fn record(
        &self,
        flags: &[&str],
        program: &Path,
        args: &[&str],
    ) -> (Output, PathBuf) {
        let store = tempfile::tempdir_in(self.dir.path()).unwrap().keep();
        let mut command = Command::new(PROGRAM);
        command.arg("--store").arg(&store).args(["record", "--heap", "--quiet"]).args(flags);
        let output =
            command.arg("--").arg(program).args(args).stdin(Stdio::null()).output().unwrap();
        let run = fs::read_dir(&store)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.is_dir());
        let run =
            run.unwrap_or_else(|| panic!("no run: {}", String::from_utf8_lossy(&output.stderr)));
        (output, run)
    }

    /// Runs one case in exact mode: what it said, and every block that is listed.
    pub(crate) fn exact(
        &self,
        program: &Path,
        args: &[&str],
    ) -> (Vec<Planted>, Vec<(u64, Vec<String>)>) {
        let (output, run) = self.record(&["--exact"], program, args);
        let said = planted(&output);
        let listed = listed(&snapshot(&run.join("heap.tbh")), program);
        fs::remove_dir_all(run).unwrap();
        (said, listed)
    }
}

pub(crate) fn snapshot(path: &Path) -> HeapSnapshot {
    heap_file::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Requested bytes of each live block and the program's functions on its stack.
pub(crate) fn listed(snapshot: &HeapSnapshot, program: &Path) -> Vec<(u64, Vec<String>)> {
    let program = fs::canonicalize(program).unwrap();
    let ours = |module: u32| {
        let module = snapshot.modules.get(usize::try_from(module).unwrap_or(usize::MAX));
        module.is_some_and(|module| Path::new(&module.path) == program)
    };
    let mut addresses: Vec<u64> = Vec::new();
    for site in &snapshot.sites {
        addresses.extend(
            site.frames.iter().filter(|frame| ours(frame.module)).map(|frame| frame.address - 1),
        );
    }
    addresses.sort_unstable();
    addresses.dedup();
    let names = functions(&program, &addresses);
    let stacks: BTreeMap<u32, Vec<String>> = snapshot
        .sites
        .iter()
        .map(|site| {
            let frames = site.frames.iter().filter(|frame| ours(frame.module));
            (
                site.id,
                frames
                    .filter_map(|frame| names.get(&(frame.address - 1)))
                    .flatten()
                    .cloned()
                    .collect(),
            )
        })
        .collect();
    let stack = |site: u32| stacks.get(&site).cloned().unwrap_or_default();
    snapshot.samples.iter().map(|sample| (sample.size, stack(sample.site))).collect()
}

/// Functions by addr2line, inlined ones included, innermost first.
pub(crate) fn functions(file: &Path, addresses: &[u64]) -> BTreeMap<u64, Vec<String>> {
    let mut names: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    if addresses.is_empty() {
        return names;
    }
    let mut command = Command::new("addr2line");
    command.args(["-a", "-i", "-f", "-e"]).arg(file);
    command.args(addresses.iter().map(|address| format!("{address:#x}")));
    let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let (mut address, mut is_name) = (0, true);
    for line in output.lines() {
        if let Some(hex) = line.strip_prefix("0x") {
            (address, is_name) = (u64::from_str_radix(hex, 16).unwrap(), true);
            continue;
        }
        if is_name {
            names.entry(address).or_default().push(line.to_owned());
        }
        is_name = !is_name;
    }
    names
}

/// Builds the object beside the program under test, once.
pub(crate) fn object() -> &'static Path {
    static OBJECT: OnceLock<PathBuf> = OnceLock::new();
    OBJECT.get_or_init(|| {
        let profile = Path::new(PROGRAM).parent().unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--locked", "-p", "tailbeam-preload"]);
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        cargo
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("CARGO_TARGET_DIR", profile.parent().unwrap());
        let output = cargo.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        profile.join("libtailbeam_preload.so")
    })
}
