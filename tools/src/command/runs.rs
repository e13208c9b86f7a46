//! `runs`: list, show, mark, remove and check the runs of a store.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use tailbeam_harness::evidence::{Checked, Health, RunSummary, Store, StoreError, check};
use tailbeam_probes::clock;

use super::Outcome;
use crate::Failure;
use crate::args::{Format, FsckArgs, GcArgs, RunsCommand, TagArgs};
use crate::render::{json, runs as view};

/// A run without an end that changed so recently may still be recorded: twice the longest window, ns.
const LIVE_NS: u64 = 20 * 60 * 1_000_000_000;

/// Runs `runs`.
pub(super) fn run(command: RunsCommand, root: &Path, out: &mut dyn Write) -> Outcome {
    let store = Store::open_existing(root).map_err(failure)?;
    match command {
        RunsCommand::List { format } => {
            let runs = store.list().map_err(failure)?;
            match format {
                Format::Table => view::list(&runs, out)?,
                Format::Json => json::runs(&runs, out)?,
            }
            Ok(0)
        }
        RunsCommand::Show { run, format } => show(&store, &run, format, out),
        RunsCommand::Path { run } => {
            writeln!(out, "{}", store.resolve(&run).map_err(failure)?.display())?;
            Ok(0)
        }
        RunsCommand::Tag(args) => tag(&store, &args, out),
        RunsCommand::Pin { run, remove } => {
            let id = id(&store, &run)?;
            store.mark(|marks| marks.pin(&id, !remove)).map_err(failure)?;
            writeln!(out, "{id} {}", if remove { "unpinned" } else { "pinned" })?;
            Ok(0)
        }
        RunsCommand::Rm { run, yes } => remove(&store, &run, yes, out),
        RunsCommand::Gc(args) => gc(&store, &args, out),
        RunsCommand::Fsck(args) => fsck(&store, &args, out),
    }
}

fn failure(error: StoreError) -> Failure {
    Failure::new(1, error)
}

fn id_of(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

fn id(store: &Store, name: &str) -> Result<String, Failure> {
    store.resolve(name).map(|path| id_of(&path)).map_err(failure)
}

fn show(store: &Store, name: &str, format: Format, out: &mut dyn Write) -> Outcome {
    let path = store.resolve(name).map_err(failure)?;
    let id = id_of(&path);
    let summary = store.list().map_err(failure)?.into_iter().find(|run| run.id == id);
    let Some(summary) = summary else {
        return Err(Failure::new(
            1,
            format!(
                "run {id} has just been removed\n  cause: another process did it\n  remedy: `tailbeam runs list`"
            ),
        ));
    };
    let mut files = Vec::new();
    list_files(&path, &path, &mut files);
    files.sort();
    let shown = view::Shown { summary: &summary, path: &path, files: &files };
    match format {
        Format::Table => view::show(&shown, out)?,
        Format::Json => view::show_json(&shown, out)?,
    }
    Ok(0)
}

/// Files below `dir` by their path from `root`, with their size.
fn list_files(root: &Path, dir: &Path, files: &mut Vec<(String, u64)>) {
    for entry in fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok) {
        let path = entry.path();
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => list_files(root, &path, files),
            Ok(meta) => {
                let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
                files.push((name, meta.len()));
            }
            Err(_) => {}
        }
    }
}

fn tag(store: &Store, args: &TagArgs, out: &mut dyn Write) -> Outcome {
    if let Some(name) = &args.remove {
        let name = name.strip_prefix('@').unwrap_or(name);
        if !store.mark(|marks| marks.untag(name)).map_err(failure)? {
            return Err(Failure::new(
                1,
                format!(
                    "no run is tagged {name}\n  cause: no such tag is in marks.json\n  remedy: `tailbeam runs list` shows the tags"
                ),
            ));
        }
        writeln!(out, "{name} is no tag any more")?;
        return Ok(0);
    }
    // clap asks for both unless --remove is given.
    let (run, name) =
        (args.run.as_deref().unwrap_or_default(), args.name.as_deref().unwrap_or_default());
    let (id, name) = (id(store, run)?, name.strip_prefix('@').unwrap_or(name));
    let before = store
        .mark(|marks| marks.tag(&id, name))
        .map_err(failure)?
        .map_err(|error| Failure::new(2, error))?;
    match before {
        Some(before) => writeln!(out, "@{name} is {id}; it was {before}")?,
        None => writeln!(out, "@{name} is {id}")?,
    }
    Ok(0)
}

/// Why a run stays, whoever wants it gone.
fn kept(run: &RunSummary, now_ns: u64) -> Option<&'static str> {
    if run.pinned {
        return Some("pinned");
    }
    let live = run.end == "unsealed" && now_ns.saturating_sub(run.changed_unix_ns) < LIVE_NS;
    live.then_some("it has no end and has just changed: it may still be recorded")
}

fn remove(store: &Store, names: &[String], yes: bool, out: &mut dyn Write) -> Outcome {
    let all = store.list().map_err(failure)?;
    let now_ns = clock::realtime_ns();
    let mut going: Vec<RunSummary> = Vec::new();
    for name in names {
        let id = id(store, name)?;
        let Some(run) = all.iter().find(|run| run.id == id) else { continue };
        if let Some(why) = kept(run, now_ns) {
            let remedy = match run.pinned {
                true => format!("`tailbeam runs pin {id} --remove` first"),
                false => "end the process that records it, or wait".to_owned(),
            };
            return Err(Failure::new(
                1,
                format!("{id} is not removed, nor any other\n  cause: {why}\n  remedy: {remedy}"),
            ));
        }
        if going.iter().all(|known| known.id != id) {
            going.push(run.clone());
        }
    }
    view::going(&going, &[], yes, out)?;
    if yes {
        going.iter().try_for_each(|run| store.remove(&run.id)).map_err(failure)?;
    }
    Ok(0)
}

/// What goes, and what stays although it would.
#[derive(Debug, Default, PartialEq, Eq)]
struct Choice {
    going: Vec<RunSummary>,
    staying: Vec<(RunSummary, &'static str)>,
}

/// Chooses by age, then by size, the oldest first. Pure.
fn choose(runs: &[RunSummary], args: &GcArgs, now_ns: u64) -> Choice {
    let mut choice = Choice::default();
    let mut oldest: Vec<&RunSummary> = runs.iter().collect();
    oldest.sort_by_key(|run| (run.unix_ns, run.id.clone()));
    let free = oldest.len().saturating_sub(args.keep);
    let mut bytes: u64 = runs.iter().map(|run| run.bytes).sum();
    for run in &oldest[..free] {
        let old = args.older_than.is_some_and(|age| now_ns.saturating_sub(run.unix_ns) > age);
        let large = args.max.is_some_and(|max| bytes > max);
        if !old && !large {
            continue;
        }
        let why = kept(run, now_ns).or(run.certified.then_some("certified"));
        match why {
            Some(why) => choice.staying.push(((*run).clone(), why)),
            None => {
                bytes -= run.bytes;
                choice.going.push((*run).clone());
            }
        }
    }
    choice
}

fn gc(store: &Store, args: &GcArgs, out: &mut dyn Write) -> Outcome {
    if args.older_than.is_none() && args.max.is_none() {
        return Err(Failure::new(
            2,
            "gc does not know what may go\n  cause: neither --older-than nor --max was given\n  remedy: `tailbeam runs gc --older-than 30d`, or --max 20GiB",
        ));
    }
    let runs = store.list().map_err(failure)?;
    let choice = choose(&runs, args, clock::realtime_ns());
    let leftovers = store.leftovers().map_err(failure)?;
    match args.format {
        Format::Table => {
            view::going(&choice.going, &choice.staying, args.yes, out)?;
            view::left(&leftovers, args.yes, out)?;
            over(&runs, &choice, args.max, out)?;
        }
        Format::Json => view::going_json(&choice.going, &choice.staying, args.yes, out)?,
    }
    if args.yes {
        choice.going.iter().try_for_each(|run| store.remove(&run.id)).map_err(failure)?;
        for (path, _) in &leftovers {
            fs::remove_dir_all(path).map_err(|error| {
                Failure::new(
                    1,
                    format!(
                        "cannot remove {}\n  cause: {error}\n  remedy: remove it by hand",
                        path.display()
                    ),
                )
            })?;
        }
    }
    Ok(0)
}

/// Says when what stays is still larger than what was asked for.
fn over(runs: &[RunSummary], choice: &Choice, max: Option<u64>, out: &mut dyn Write) -> Outcome {
    let all: u64 = runs.iter().map(|run| run.bytes).sum();
    let rest = all - choice.going.iter().map(|run| run.bytes).sum::<u64>();
    if let Some(max) = max.filter(|max| rest > *max) {
        view::over(rest, max, out)?;
    }
    Ok(0)
}

fn fsck(store: &Store, args: &FsckArgs, out: &mut dyn Write) -> Outcome {
    let dirs: Vec<PathBuf> = match args.run.is_empty() {
        true => {
            let runs = store.list().map_err(failure)?;
            runs.iter().map(|run| store.root().join(&run.id)).collect()
        }
        false => args
            .run
            .iter()
            .map(|name| store.resolve(name).map_err(failure))
            .collect::<Result<_, _>>()?,
    };
    let checked: Vec<Checked> = dirs.iter().map(|dir| check(dir)).collect();
    let mut strange = Vec::new();
    if args.run.is_empty() {
        let leftovers = store.leftovers().map_err(failure)?;
        strange.extend(leftovers.into_iter().map(|(path, _)| {
            format!(
                "{}: left by a removal that was interrupted; `tailbeam runs gc` removes it",
                path.display()
            )
        }));
        let known: Vec<&str> = checked.iter().map(|run| run.id.as_str()).collect();
        let marks = store.marks().map_err(failure)?;
        strange.extend(
            marks
                .ids()
                .filter(|id| !known.contains(id))
                .map(|id| format!("marks.json: {id} has a mark and is no run of this store")),
        );
    }
    match args.format {
        Format::Table => view::checked(&checked, &strange, out)?,
        Format::Json => view::checked_json(&checked, &strange, out)?,
    }
    let worst = checked.iter().map(|run| run.health).max().unwrap_or(Health::Whole);
    let limit = if args.strict { Health::Unsealed } else { Health::Damaged };
    Ok(if worst >= limit { 6 } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000_000_000;

    fn run(id: &str, age_h: u64, bytes: u64) -> RunSummary {
        RunSummary {
            id: id.to_owned(),
            started: String::new(),
            workload: String::new(),
            agents: 0,
            planned_s: 0,
            end: "finished".to_owned(),
            bytes,
            tags: Vec::new(),
            pinned: false,
            certified: false,
            unix_ns: (1_000 - age_h) * HOUR,
            changed_unix_ns: (1_000 - age_h) * HOUR,
        }
    }

    fn args(older_than: Option<u64>, max: Option<u64>, keep: usize) -> GcArgs {
        GcArgs { older_than, max, keep, yes: false, format: Format::Table }
    }

    fn chosen(runs: &[RunSummary], args: &GcArgs) -> (Vec<String>, Vec<String>) {
        let choice = choose(runs, args, 1_000 * HOUR);
        let going = choice.going.into_iter().map(|run| run.id).collect();
        (going, choice.staying.into_iter().map(|(run, _)| run.id).collect())
    }

    #[test]
    fn the_oldest_go_first_and_pinned_certified_and_live_ones_never() {
        let mut runs = vec![run("new", 1, 10), run("old", 100, 10), run("older", 200, 10)];
        assert_eq!(chosen(&runs, &args(Some(50 * HOUR), None, 0)).0, ["older", "old"]);
        assert_eq!(chosen(&runs, &args(Some(50 * HOUR), None, 2)).0, ["older"]);
        assert_eq!(chosen(&runs, &args(None, Some(20), 0)).0, ["older"]);
        assert_eq!(chosen(&runs, &args(None, Some(30), 0)).0, Vec::<String>::new());
        runs[2].pinned = true;
        let (going, staying) = chosen(&runs, &args(None, Some(20), 0));
        assert_eq!((going, staying), (vec!["old".to_owned()], vec!["older".to_owned()]));
        runs[1].certified = true;
        runs[0].end = "unsealed".to_owned();
        runs[0].changed_unix_ns = 1_000 * HOUR;
        let (going, staying) = chosen(&runs, &args(None, Some(0), 0));
        assert_eq!(
            (going.len(), staying),
            (0, ["older", "old", "new"].map(str::to_owned).to_vec())
        );
    }
}
