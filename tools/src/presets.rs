//! Named shapes of a load: each is the flags that it stands for, and nothing else.

use std::ffi::{OsStr, OsString};

use crate::scenario;

/// A named shape.
pub(crate) struct Preset {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) flags: &'static str,
}

/// All of them (what the original assessment ran, with its figures; see the notes of each).
pub(crate) const PRESETS: [Preset; 14] = [
    Preset {
        name: "soak",
        about: "the endurance run: any other agent is asked, 3,030 requests/s of 10,000 agents",
        flags: "--agents 10k --think 1s..5s --delay 100ms..500ms --timeout 10s",
    },
    Preset {
        name: "compare",
        about: "fan-in on 101 names, 30,300 requests/s of 10,000 agents",
        flags: "--agents 10k --think 100ms..500ms --delay 10ms..50ms --timeout 5s --targets 101 --pending-max 4096 --open-max 64",
    },
    Preset {
        name: "burst-ring",
        about: "a closed loop: 100 agents begin at once, each asks its neighbour again 0.1 s after its answer",
        flags: "--agents 100 --arrivals closed --think 100ms --delay 0ms --timeout 30s --targets ring",
    },
    Preset {
        name: "poisson",
        about: "exponential distances of 5 s in the mean, answers after 80 +- 6 ms (uniform, same deviation)",
        flags: "--agents 10k --arrivals poisson --think 5s --delay 70ms..90ms --timeout 10s",
    },
    Preset {
        name: "fan-in",
        about: "10,000 workers ask 100 experts, 25,000 requests/s",
        flags: "--agents 10100 --think 300ms..500ms --delay 1ms..7ms --timeout 5s --targets 100 --pending-max 4096 --open-max 64",
    },
    Preset {
        name: "fan-out",
        about: "each agent asks 5 others at once, 3,030 requests/s of 2,000 agents",
        flags: "--agents 2k --fan-out 5 --think 1s..5s --delay 100ms..500ms --timeout 10s",
    },
    Preset {
        name: "hot-spot",
        about: "2 agents are asked by all, 300 requests/s each of 2,000 agents",
        flags: "--agents 2k --think 3s..3600ms --delay 10ms..50ms --timeout 5s --targets 2 --pending-max 4096",
    },
    Preset {
        name: "realistic",
        about: "think 2 s +- 50 %, answers after 30 ms (70 %), 80 ms (20 %) or 200 ms, one in ten declined, sessions of 300 s",
        flags: "--agents 1200 --think 1s..3s --kinds 70%:30ms,20%:80ms,10%:200ms --timeout 10s --decline 10% --session 300s",
    },
    Preset {
        name: "churn",
        about: "the soak with sessions of 30 s in the mean: agents go, and others take their place",
        flags: "--agents 10k --think 1s..5s --delay 100ms..500ms --timeout 10s --session 30s",
    },
    Preset {
        name: "stock",
        about: "the soak under the original's limits: most requests are refused",
        flags: "--agents 10k --think 1s..5s --delay 100ms..500ms --timeout 10s --limits stock",
    },
    Preset {
        name: "size-64",
        about: "texts of 64 bytes, 1,000 agents",
        flags: "--agents 1k --think 500ms..1500ms --delay 10ms..50ms --timeout 10s --message-bytes 64B",
    },
    Preset {
        name: "size-1k",
        about: "texts of 1 KiB, 1,000 agents",
        flags: "--agents 1k --think 500ms..1500ms --delay 10ms..50ms --timeout 10s --message-bytes 1KiB",
    },
    Preset {
        name: "size-16k",
        about: "texts of 16 KiB, 1,000 agents",
        flags: "--agents 1k --think 500ms..1500ms --delay 10ms..50ms --timeout 10s --message-bytes 16KiB",
    },
    Preset {
        name: "size-1m",
        about: "texts of 1 MiB, 100 agents, 20 requests/s",
        flags: "--agents 100 --think 3s..7s --delay 10ms..50ms --timeout 10s --message-bytes 1MiB",
    },
];

/// The command line with the flags of its preset and its scenario file before its own, so that its own go
/// before. A preset that is not known stays, for the command to refuse.
///
/// # Errors
/// What is wrong with the scenario file.
pub(crate) fn expand(
    args: impl IntoIterator<Item = OsString>,
    cli: &clap::Command,
) -> Result<Vec<OsString>, String> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    let Some(command) = args.iter().position(|arg| COMMANDS.iter().any(|name| arg == name)) else {
        return Ok(args);
    };
    let mut flags = Vec::new();
    if let Some(path) = scenario::named(&args) {
        let name = path.to_string_lossy();
        let text = std::fs::read_to_string(&path).map_err(|error| {
            format!(
                "cannot read the scenario {name}\n  cause: {error}\n  remedy: name a TOML file with the flags of a soak"
            )
        })?;
        let soak = cli.find_subcommand("soak").expect("a command of ours");
        flags = scenario::flags(&name, &text, soak)?;
    }
    if let Some(preset) = named(&args).or_else(|| named(&flags)).and_then(|name| find(&name)) {
        let preset = preset.flags.split(' ').map(OsString::from);
        flags.splice(0..0, preset);
    }
    args.splice(command + 1..=command, flags);
    Ok(args)
}

/// Commands that take presets.
const COMMANDS: [&str; 2] = ["soak", "attack"];

fn named(args: &[OsString]) -> Option<String> {
    let text = |arg: &OsString| arg.to_str().map(str::to_owned);
    let given = args.iter().position(|arg| arg == OsStr::new("--preset"));
    let joined = || {
        args.iter()
            .filter_map(text)
            .find_map(|arg| arg.strip_prefix("--preset=").map(str::to_owned))
    };
    given.and_then(|at| args.get(at + 1)).and_then(text).or_else(joined)
}

/// The preset of a name.
pub(crate) fn find(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name)
}

/// All names, for an error.
pub(crate) fn names() -> String {
    PRESETS.iter().map(|preset| preset.name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn line(text: &str) -> String {
        let cli = crate::args::Cli::command();
        let args = expand(text.split(' ').map(OsString::from), &cli).unwrap();
        args.iter().map(|arg| arg.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_preset_is_its_flags_and_those_of_the_line_come_after() {
        let flags = find("compare").unwrap().flags;
        let expanded = line("tailbeam --store x soak --preset compare --agents 20");
        assert_eq!(
            expanded,
            format!("tailbeam --store x soak {flags} --preset compare --agents 20")
        );
        assert!(line("tailbeam soak --preset=compare").contains("--targets 101"));
        assert_eq!(line("tailbeam soak --preset none"), "tailbeam soak --preset none");
        assert_eq!(line("tailbeam report --preset compare"), "tailbeam report --preset compare");
        assert_eq!(line("tailbeam soak"), "tailbeam soak");
    }

    #[test]
    fn a_scenario_comes_between_its_preset_and_the_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.toml");
        std::fs::write(&path, "preset = \"compare\"\nagents = 7\n").unwrap();
        let flags = find("compare").unwrap().flags;
        let given = format!("tailbeam soak --scenario {} --agents 9", path.display());
        let rest = given.strip_prefix("tailbeam soak").unwrap();
        assert_eq!(
            line(&given),
            format!("tailbeam soak {flags} --preset=compare --agents=7{rest}")
        );
        let cli = crate::args::Cli::command();
        let missing = "tailbeam soak --scenario /nowhere".split(' ').map(OsString::from);
        assert!(expand(missing, &cli).unwrap_err().contains("/nowhere"));
    }

    #[test]
    fn every_preset_is_a_plan_that_can_be_run() {
        use clap::Parser as _;
        for preset in &PRESETS {
            let words = ["tailbeam", "soak"].into_iter().chain(preset.flags.split(' '));
            let cli = crate::args::Cli::try_parse_from(words);
            assert!(cli.is_ok(), "{}: {:?}", preset.name, cli.err());
        }
    }
}
