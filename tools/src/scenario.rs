//! Scenario files: the flags of `soak`, as TOML.
//!
//! ```toml
//! preset = "compare"
//! workload = "elicitation"
//! agents = "20k"
//! think = "100ms..500ms"
//! durability = "batch"
//! gate = ["p99<300ms", "delivery>=99.9%"]
//! ```
//!
//! A key is a flag without its dashes, a value what stands behind it; `true` sets a flag that takes none. Flags
//! of the command line go before those of the file, and those before the preset's. What a file cannot mean
//! is refused with its line and column.

use std::ffi::{OsStr, OsString};

use clap::ArgAction;
use serde_json::{Map, Value, json};
use toml::de::{DeTable, DeValue};

use crate::presets;

/// Keys that a scenario cannot have: they name the file, or have nothing to do with the load.
const NOT_HERE: [&str; 5] = ["scenario", "help", "store", "print-systemd-run", "scenario-schema"];

/// The file that a command line names.
pub(crate) fn named(args: &[OsString]) -> Option<OsString> {
    let at = args.iter().position(|arg| arg == OsStr::new("--scenario"));
    let joined = || {
        let text = args.iter().filter_map(|arg| arg.to_str());
        text.filter_map(|arg| arg.strip_prefix("--scenario=")).next().map(OsString::from)
    };
    at.and_then(|at| args.get(at + 1).cloned()).or_else(joined)
}

/// The flags of a scenario. `name` is the file's, for errors; `command` is the one whose flags it may hold.
///
/// # Errors
/// One text, with line and column, cause and remedy.
pub(crate) fn flags(
    name: &str,
    text: &str,
    command: &clap::Command,
) -> Result<Vec<OsString>, String> {
    let place = |at: usize| {
        let before = text.get(..at).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        format!("{name}:{line}:{column}")
    };
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        format!(
            "{}: no TOML\n  cause: {}\n  remedy: write lines such as agents = \"10k\"",
            place(at),
            error.message()
        )
    })?;
    // In the order of the file: of two that exclude each other the error names the second.
    let mut entries: Vec<_> = table.get_ref().iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    let mut flags = Vec::new();
    for (key, value) in entries {
        let known = flag(command, key.get_ref())
            .map_err(|error| format!("{}: {error}", place(key.span().start)))?;
        let values = values(text, value.get_ref(), value.span())
            .map_err(|error| format!("{}: {error}", place(value.span().start)))?;
        if values.len() > 1 && !matches!(known.get_action(), ArgAction::Append) {
            return Err(format!(
                "{}: {} takes one value\n  cause: there are {} in its list\n  remedy: leave one of them",
                place(value.span().start),
                key.get_ref(),
                values.len()
            ));
        }
        for value_text in values {
            let one = one(known, &value_text);
            check(command, &one).map_err(|cause| {
                format!(
                    "{}: {} cannot be {value_text:?}\n  cause: {cause}\n  remedy: `tailbeam soak --help` shows what it takes",
                    place(value.span().start),
                    key.get_ref()
                )
            })?;
            flags.extend(one);
        }
    }
    Ok(flags)
}

/// The JSON Schema of scenario files, for editors: keys, what they are, and which words they take. What a text must be
/// like beyond that, as a time with its unit, is looked at when it is read.
pub(crate) fn schema(command: &clap::Command) -> Value {
    let here = |arg: &&clap::Arg| arg.get_long().is_some_and(|long| !NOT_HERE.contains(&long));
    let properties: Map<String, Value> = command
        .get_arguments()
        .filter(here)
        .map(|arg| (arg.get_long().unwrap_or_default().to_owned(), property(arg)))
        .collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tailbeam scenario",
        "description": "Flags of `tailbeam soak`, without their dashes",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    })
}

fn property(arg: &clap::Arg) -> Value {
    let words: Vec<String> = match arg.get_id().as_str() {
        "preset" => presets::PRESETS.iter().map(|preset| preset.name.to_owned()).collect(),
        _ => arg.get_possible_values().iter().map(|of| of.get_name().to_owned()).collect(),
    };
    let one = match words.is_empty() {
        true => json!({"type": ["string", "number"]}),
        false => json!({"enum": words}),
    };
    let of = match arg.get_action() {
        ArgAction::SetTrue => json!({"type": "boolean"}),
        ArgAction::Append => {
            let list = json!({"type": "array", "items": one.clone()});
            json!({"anyOf": [one, list]})
        }
        _ => one,
    };
    let mut of = of.as_object().cloned().unwrap_or_default();
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    of.insert("description".to_owned(), help.into());
    // What is taken without it, in the words of the command line.
    if let [default] = arg.get_default_values() {
        let default = default.to_string_lossy().into_owned();
        if !matches!(arg.get_action(), ArgAction::SetTrue) {
            of.insert("default".to_owned(), default.into());
        }
    }
    of.into()
}

/// The flag that a key names.
fn flag<'a>(command: &'a clap::Command, key: &str) -> Result<&'a clap::Arg, String> {
    let here = |arg: &&clap::Arg| arg.get_long().is_some_and(|long| !NOT_HERE.contains(&long));
    let all = || command.get_arguments().filter(here);
    if let Some(arg) = all().find(|arg| arg.get_long() == Some(key)) {
        return Ok(arg);
    }
    let nearest = all()
        .filter_map(clap::Arg::get_long)
        .map(|long| (distance(long, key), long))
        .min()
        .filter(|(distance, _)| *distance <= 1 + key.len() / 3);
    let remedy = nearest.map_or_else(
        || "`tailbeam soak --help` lists the flags; a key is one without its dashes".to_owned(),
        |(_, long)| format!("did you mean {long}?"),
    );
    Err(format!("unknown key {key:?}\n  cause: soak has no flag of this name\n  remedy: {remedy}"))
}

/// A value as it would stand on the command line; several for a list, none for `false`.
fn values(
    text: &str,
    value: &DeValue<'_>,
    span: std::ops::Range<usize>,
) -> Result<Vec<String>, String> {
    match value {
        DeValue::String(string) => Ok(vec![string.to_string()]),
        DeValue::Integer(_) | DeValue::Float(_) => Ok(vec![text[span].replace('_', "")]),
        DeValue::Boolean(false) => Ok(Vec::new()),
        DeValue::Boolean(true) => Ok(vec![String::new()]),
        DeValue::Array(items) => {
            let each = items.iter().map(|item| values(text, item.get_ref(), item.span()));
            each.collect::<Result<Vec<_>, _>>().map(|all| all.concat())
        }
        DeValue::Datetime(_) | DeValue::Table(_) => Err(
            "no value of a flag\n  cause: a scenario is flat: strings, numbers, true, lists\n  remedy: leave tables and dates out"
                .to_owned(),
        ),
    }
}

/// A flag and its value, in one piece where it has one, so that a value may begin with a dash.
fn one(flag: &clap::Arg, value: &str) -> Vec<OsString> {
    let long = flag.get_long().unwrap_or_default();
    match value {
        "" => vec![format!("--{long}").into()],
        value => vec![format!("--{long}={value}").into()],
    }
}

/// That the command takes it.
fn check(command: &clap::Command, one: &[OsString]) -> Result<(), String> {
    let line = std::iter::once(OsString::from(command.get_name())).chain(one.iter().cloned());
    match command.clone().try_get_matches_from(line) {
        Ok(_) => Ok(()),
        Err(error) => {
            use std::error::Error as _;
            let said = error.source().map(ToString::to_string);
            let whole = error.to_string();
            let first = whole.lines().next().unwrap_or_default();
            Err(said.unwrap_or_else(|| first.trim_start_matches("error: ").to_owned()))
        }
    }
}

/// Edit distance (Levenshtein), for suggestions.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in other.iter().enumerate() {
            let cost = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::args::Cli;

    fn read(text: &str) -> Result<String, String> {
        let cli = Cli::command();
        let soak = cli.find_subcommand("soak").expect("a command");
        let flags = flags("file.toml", text, soak)?;
        Ok(flags.iter().map(|flag| flag.to_string_lossy()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn a_scenario_is_flags_in_the_order_of_its_lines() {
        let text = "# ours\npreset = \"compare\"\nagents = 20_000\nlong-poll = true\nkeep-log = false\ndecline = 0.05\ngate = [\"p99<300ms\", \"outcomes\"]\n";
        assert_eq!(
            read(text).unwrap(),
            "--preset=compare --agents=20000 --long-poll --decline=0.05 --gate=p99<300ms --gate=outcomes"
        );
        assert_eq!(read("").unwrap(), "");
    }

    /// What is read is valid, and what is refused for its key, its kind or its word is not.
    #[test]
    fn the_schema_says_what_is_read() {
        let cli = Cli::command();
        let schema = schema(cli.find_subcommand("soak").expect("a command"));
        let validator = jsonschema::validator_for(&schema).unwrap();
        let valid = |text: &str| {
            let value: toml::Value = toml::from_str(text).unwrap();
            validator.is_valid(&serde_json::to_value(value).unwrap())
        };
        for text in [
            "",
            "preset = \"compare\"\nagents = 20_000\nlong-poll = true\nkeep-log = false\ndecline = 0.05",
            "gate = [\"p99<300ms\", \"outcomes\"]\nthink = \"1s..5s\"",
            "kinds = \"70%:30ms, 30%:80ms..90ms\"",
            "gate = \"outcomes\"\ndurability = \"per-event\"\nworkload = \"elicitation\"",
        ] {
            assert!(valid(text) && read(text).is_ok(), "{text}: {:?}", read(text));
        }
        for text in [
            "agnets = 5",
            "durability = \"sometimes\"",
            "agents = { n = 5 }",
            "long-poll = 5",
            "scenario = \"x\"",
            "agents = [1, 2]",
        ] {
            assert!(!valid(text) && read(text).is_err(), "{text}: {:?}", read(text));
        }
        // Each key is a flag, with words of its own, and each preset is one of them.
        let properties = schema["properties"].as_object().unwrap();
        assert!(properties.len() > 40 && properties.values().all(|of| of["description"] != ""));
        assert_eq!(properties["preset"]["enum"].as_array().unwrap().len(), presets::PRESETS.len());
        assert_eq!(properties["agents"]["default"], "10k");
    }

    #[test]
    fn what_it_cannot_mean_is_refused_with_its_place() {
        for (text, place, says) in [
            ("agents = \"10k\"\nagnets = 5\n", "file.toml:2:1", "did you mean agents?"),
            ("think = \"1s..5\"", "file.toml:1:9", "duration with a unit"),
            ("\n\ndurability = \"sometimes\"", "file.toml:3:14", "cause:"),
            ("agents = ", "file.toml:1:", "no TOML"),
            ("[load]\nagents = 5", "file.toml:1:", "unknown key \"load\""),
            ("agents = { n = 5 }", "file.toml:1:10", "a scenario is flat"),
            ("long-poll = 5", "file.toml:1:13", "cause:"),
            ("kinds = \"70%:30ms,30%\"", "file.toml:1:9", "write 70%:30ms"),
            ("agents = [1, 2]", "file.toml:1:10", "takes one value"),
            ("scenario = \"x\"", "file.toml:1:1", "unknown key"),
            ("agents = 1\nagents = 2", "file.toml:2:1", "duplicate"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with(place), "{text:?}: {error}");
            assert!(error.contains(says) && error.contains("remedy:"), "{text:?}: {error}");
        }
    }

    /// Every beginning of a scenario, and each with one character changed, is read or refused.
    #[test]
    fn no_text_makes_it_panic() {
        let text =
            "preset = \"compare\"\nthink = '1s..5s' # \u{e9}\ngate = [\"p99<1s\", 5]\nx.y = 1\n";
        for (at, _) in text.char_indices() {
            drop(read(&text[..at]));
            for other in ["", "\"", "\u{1F980}", "[", "=", "\0", "\n"] {
                let rest: String = text[at..].chars().skip(1).collect();
                drop(read(&format!("{}{other}{rest}", &text[..at])));
            }
        }
    }

    #[test]
    fn distances() {
        assert_eq!(
            [("", ""), ("a", ""), ("agents", "agnets"), ("kitten", "sitting")]
                .map(|(a, b)| distance(a, b)),
            [0, 1, 2, 3]
        );
    }
}
