//! Settings from files: `[COMMAND]` and below it any flag of that command by its own name, `store` above all.
//! A flag on the command line wins over the environment, that over `./tailbeam.toml` (or `--config FILE`),
//! that over the user's `tailbeam/config.toml`, that over `/etc/tailbeam/config.toml`.
//!
//! ```toml
//! store = "/var/lib/tailbeam"
//! [soak]
//! agents = "5k"
//! gate = ["p99<250ms", "outcomes"]
//! ```
//!
//! A key that no flag has, or a value that the flag would refuse, is an error with its line; nothing is
//! passed over in silence.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Command};
use toml::Value;

type Table = toml::map::Map<String, Value>;

/// A flag with a value from a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    /// Command, empty for what all have.
    pub(crate) command: String,
    /// Flag, without its dashes.
    pub(crate) flag: String,
    /// Values; several for a flag that may be given several times.
    pub(crate) values: Vec<String>,
    /// File and line.
    pub(crate) origin: String,
}

/// Files that may hold settings, the weakest first.
pub(crate) fn files(args: &[OsString]) -> Vec<PathBuf> {
    let absolute =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let user =
        absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
    let mut files = vec![PathBuf::from("/etc/tailbeam/config.toml")];
    files.extend(user.map(|dir| dir.join("tailbeam/config.toml")));
    files.push(named(args).unwrap_or_else(|| PathBuf::from("tailbeam.toml")));
    files
}

/// The file that `--config` names. It is needed before the flags can be read.
pub(crate) fn named(args: &[OsString]) -> Option<PathBuf> {
    flagged(args).or_else(|| std::env::var_os("TAILBEAM_CONFIG").map(PathBuf::from))
}

fn flagged(args: &[OsString]) -> Option<PathBuf> {
    let own = args.iter().take_while(|arg| *arg != "--").collect::<Vec<_>>();
    own.iter().enumerate().find_map(|(index, arg)| match arg.to_str()? {
        "--config" => own.get(index + 1).map(PathBuf::from),
        text => text.strip_prefix("--config=").map(PathBuf::from),
    })
}

/// Reads all settings, the weakest first. `must`: a file that has to be there.
///
/// # Errors
/// What is wrong, with cause and remedy.
pub(crate) fn read(
    files: &[PathBuf],
    must: Option<&Path>,
    command: &Command,
) -> Result<Vec<Setting>, String> {
    let mut settings = Vec::new();
    for file in files {
        match fs::read_to_string(file) {
            Ok(text) => settings.extend(parse(&text, &file.display().to_string(), command)?),
            Err(error) if must != Some(file.as_path()) && is_nobodys(file, &error) => {}
            Err(error) => {
                return Err(format!(
                    "cannot read {}\n  cause: {error}\n  remedy: make it readable, or take it away",
                    file.display()
                ));
            }
        }
    }
    Ok(settings)
}

/// Whether it is not there, or behind a directory that this user may not enter: then HOME is somebody else's, as
/// under setpriv or sudo, and so are the settings.
fn is_nobodys(file: &Path, error: &io::Error) -> bool {
    let denied = |error: io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    error.kind() == io::ErrorKind::NotFound || fs::symlink_metadata(file).is_err_and(denied)
}

/// Line of a byte, from 1.
fn line(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

fn parse(text: &str, name: &str, command: &Command) -> Result<Vec<Setting>, String> {
    let table: Table = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(1, |span| line(text, span.start));
        format!("{name}:{at} is not TOML\n  cause: {}\n  remedy: write KEY = \"VALUE\" below a [COMMAND]", error.message())
    })?;
    let mut settings = Vec::new();
    for (key, value) in &table {
        match value {
            Value::Table(flags) => {
                let Some(sub) = find_command(command, key) else {
                    let names = command.get_subcommands().map(Command::get_name);
                    return Err(unknown(name, place(text, None, key), key, "command", names));
                };
                for (flag, value) in flags {
                    let at = place(text, Some(key), flag);
                    settings.push(setting((command, sub), (key, flag), value, (name, at))?);
                }
            }
            value => {
                let at = place(text, None, key);
                settings.push(setting((command, command), ("", key), value, (name, at))?);
            }
        }
    }
    Ok(settings)
}

fn find_command<'a>(command: &'a Command, name: &str) -> Option<&'a Command> {
    command.get_subcommands().find(|sub| sub.get_name() == name)
}

/// Line of a key, below a table's head where it has one.
fn place(text: &str, table: Option<&str>, key: &str) -> usize {
    let mut inside = table.is_none();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(head) = line.strip_prefix('[') {
            let head = head.trim_end_matches(']').trim();
            inside = table == Some(head);
            if table.is_none() && head == key {
                return number + 1;
            }
        }
        let named = line.split('=').next().unwrap_or_default().trim().trim_matches('"');
        if inside && named == key {
            return number + 1;
        }
    }
    1
}

fn unknown<'a>(
    file: &str,
    line: usize,
    key: &str,
    what: &str,
    names: impl Iterator<Item = &'a str>,
) -> String {
    let near = names.map(|name| (distance(name, key), name)).min();
    let remedy = match near {
        Some((0..=3, name)) => format!("did you mean {name:?}?"),
        _ => "`tailbeam config show` lists them".to_owned(),
    };
    format!(
        "{file}:{line}: there is no {what} {key:?}\n  cause: keys are the names of commands and of their flags\n  remedy: {remedy}"
    )
}

/// Edits that make one word the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let kept = before + usize::from(x != *y);
            before = row[j + 1];
            row[j + 1] = kept.min(before + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Whether a flag may be set by a file: not what ends the program, nor what names a file of settings.
fn settable(arg: &Arg) -> bool {
    let shown = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append | ArgAction::SetTrue);
    shown
        && arg.get_long().is_some()
        && !["config", "yes", "new-key", "schema"].contains(&arg.get_long().unwrap_or_default())
}

fn setting(
    (root, sub): (&Command, &Command),
    (command, flag): (&str, &str),
    value: &Value,
    (file, line): (&str, usize),
) -> Result<Setting, String> {
    let arg = sub.get_arguments().find(|arg| arg.get_long() == Some(flag) && settable(arg));
    let Some(arg) = arg else {
        let names = sub.get_arguments().filter(|arg| settable(arg)).filter_map(Arg::get_long);
        return Err(unknown(file, line, flag, "flag", names));
    };
    let refused = |cause: &str| {
        let remedy = "`--help` of the command shows what each flag takes";
        format!("{file}:{line}: {flag} cannot be {value}\n  cause: {cause}\n  remedy: {remedy}")
    };
    let values = match value {
        Value::Array(list) if matches!(arg.get_action(), ArgAction::Append) => {
            list.iter().map(plain).collect()
        }
        value => plain(value).map(|value| vec![value]),
    };
    let values = values.ok_or_else(|| refused("it is no text, number or list of these"))?;
    let switch = matches!(arg.get_action(), ArgAction::SetTrue);
    if switch && !matches!(value, Value::Boolean(_)) {
        return Err(refused("it is true or false"));
    }
    for value in values.iter().filter(|_| !switch) {
        let words =
            ["tailbeam", command].into_iter().filter(|word| !word.is_empty()).map(str::to_owned);
        let words = words.chain([format!("--{flag}={value}")]);
        if let Err(error) = root.clone().try_get_matches_from(words)
            && matches!(error.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue)
        {
            let text = crate::args::usage(&error);
            let cause = text.lines().find_map(|line| line.trim().strip_prefix("cause: "));
            let first = text.lines().next().unwrap_or_default();
            return Err(refused(cause.unwrap_or_else(|| first.trim_start_matches("error: "))));
        }
    }
    Ok(Setting {
        command: command.to_owned(),
        flag: flag.to_owned(),
        values,
        origin: format!("{file}:{line}"),
    })
}

/// A value as it would be typed.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(holds) => Some(holds.to_string()),
        _ => None,
    }
}

/// Gives flags the values that files have for them.
pub(crate) fn apply(mut command: Command, settings: &[Setting]) -> Command {
    for of in settings {
        let values = of.values.clone();
        let set = move |arg: Arg| arg.default_values(values);
        let flag = of.flag.clone();
        let id = |command: &Command| {
            let arg = command.get_arguments().find(|arg| arg.get_long() == Some(&flag));
            arg.map(|arg| arg.get_id().clone())
        };
        command = match of.command.as_str() {
            "" => match id(&command) {
                Some(id) => command.mut_arg(id, set),
                None => command,
            },
            name => command.mut_subcommand(name, |sub| match id(&sub) {
                Some(id) => sub.mut_arg(id, set),
                None => sub,
            }),
        };
    }
    command
}

/// A flag, its value, and where that is from.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Effective {
    /// `COMMAND.FLAG`, or `FLAG` for what all commands have.
    pub(crate) key: String,
    /// Value; several are joined.
    pub(crate) value: String,
    /// `FILE:LINE`, `TAILBEAM_...`, or `default`.
    pub(crate) origin: String,
}

/// Every flag that has a value before anything is typed.
pub(crate) fn effective(command: &Command, settings: &[Setting]) -> Vec<Effective> {
    let mut all = Vec::new();
    let subs = command.get_subcommands().map(|sub| (sub.get_name(), sub));
    for (name, sub) in std::iter::once(("", command)).chain(subs) {
        for arg in sub
            .get_arguments()
            .filter(|arg| settable(arg) && (name.is_empty() || !arg.is_global_set()))
        {
            let flag = arg.get_long().unwrap_or_default();
            let set = settings.iter().rev().find(|of| of.command == name && of.flag == flag);
            let env = arg.get_env().and_then(|env| Some((env, std::env::var_os(env)?)));
            let default: Vec<String> = arg
                .get_default_values()
                .iter()
                .map(|value| value.to_string_lossy().into_owned())
                .collect();
            let (value, origin) = match (env, set) {
                (Some((env, value)), _) => {
                    (value.to_string_lossy().into_owned(), env.to_string_lossy().into_owned())
                }
                (None, Some(of)) => (of.values.join(" "), of.origin.clone()),
                (None, None) if default.is_empty() => continue,
                (None, None) => (default.join(" "), "default".to_owned()),
            };
            let key = if name.is_empty() { flag.to_owned() } else { format!("{name}.{flag}") };
            all.push(Effective { key, value, origin });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Vec<Setting>, String> {
        parse(text, "t.toml", &crate::args::command(&[]))
    }

    #[test]
    fn settings_know_their_line() {
        let text = "store = \"/x\"\n\n[soak]\nagents = \"5k\"\nseed = 7\ngate = [\"p99<1s\", \"outcomes\"]\n";
        let settings = read_text(text).unwrap();
        let of = |flag: &str| settings.iter().find(|of| of.flag == flag).unwrap();
        assert_eq!(
            (of("store").origin.as_str(), of("agents").origin.as_str()),
            ("t.toml:1", "t.toml:4")
        );
        assert_eq!(of("gate").values, ["p99<1s", "outcomes"]);
        let command = apply(crate::args::command(&[]), &settings);
        let matches = command.clone().try_get_matches_from(["tailbeam", "soak"]).unwrap();
        let soak = matches.subcommand_matches("soak").unwrap();
        assert_eq!(
            (soak.get_one::<u64>("agents"), soak.get_one::<u64>("seed")),
            (Some(&5_000), Some(&7))
        );
        let typed = command.try_get_matches_from(["tailbeam", "soak", "--agents", "9"]).unwrap();
        assert_eq!(typed.subcommand_matches("soak").unwrap().get_one::<u64>("agents"), Some(&9));
    }

    #[test]
    fn what_no_flag_is_or_takes_is_refused_with_its_line() {
        for (text, wanted) in [
            ("[soak]\nagent = 5\n", "t.toml:2: there is no flag \"agent\"\n"),
            ("[soak]\nagent = 5\n", "did you mean \"agents\"?"),
            ("[soka]\nagents = 5\n", "t.toml:1: there is no command \"soka\""),
            ("[soak]\nagents = \"many\"\n", "t.toml:2: agents cannot be \"many\""),
            ("[soak]\nagents = \"many\"\n", "write a count such as"),
            ("[soak]\n\nformat = \"xml\"\n", "t.toml:3: format cannot be"),
            ("[soak]\nagents = { a = 1 }\n", "it is no text"),
            ("[doctor]\nstrict = \"yes\"\n", "it is true or false"),
            ("[runs]\nyes = true\n", "there is no flag \"yes\""),
            ("bogus = 1\n", "t.toml:1: there is no flag \"bogus\""),
            ("[soak\n", "t.toml:1 is not TOML"),
        ] {
            let error = read_text(text).unwrap_err();
            assert!(error.contains(wanted) && error.contains("remedy:"), "{text}: {error}");
        }
    }

    #[test]
    fn the_file_is_named_before_the_flags_are_read() {
        let of = |words: &[&str]| flagged(&words.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(of(&["t", "--config", "a", "soak"]), Some(PathBuf::from("a")));
        assert_eq!(of(&["t", "soak", "--config=b"]), Some(PathBuf::from("b")));
        assert_eq!(of(&["t", "record", "--", "x", "--config", "c"]), None);
    }
}
