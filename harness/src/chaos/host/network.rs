//! Network namespaces, the cable between them, and its filters: by `ip` and `nft`.

use std::fs;
use std::path::Path;

use rustix::fd::OwnedFd;

use super::failure::{self, Failure};
use super::process::pause_ms;
use super::residue;
use super::step::{Rule, Step, VethPair};
use super::tool;

/// Where `ip` keeps names of network namespaces. It mounts this folder onto itself with its first name.
pub(super) const NAMES: &str = "/run/netns";

/// Undoes a step of the network; `false`: its thing is not there.
pub(super) fn undo(
    step: &Step,
    before: Option<&str>,
    line: Option<&OwnedFd>,
) -> Result<bool, Failure> {
    Ok(match step {
        Step::Namespace { name } => remove_namespace(name, before, line)?,
        Step::Veth { pair } => {
            let [name, _] = &pair.namespaces;
            let there_still = has_namespace(name) && has_device(name, &pair.device, line);
            if there_still {
                tool::run(&["ip", "-n", name, "link", "del", &pair.device], line)?;
            }
            there_still
        }
        Step::LinkDown { namespace, device } => {
            let there_still = has_namespace(namespace) && has_device(namespace, device, line);
            if there_still {
                tool::run(&["ip", "-n", namespace, "link", "set", device, "up"], line)?;
                is_up(namespace, device, line)?;
            }
            there_still
        }
        Step::Filter { namespace, table, .. } => {
            let list = ["list", "table", "inet", table];
            let there_still = has_namespace(namespace) && nft(namespace, &list, line).is_ok();
            if there_still {
                nft(namespace, &["delete", "table", "inet", table], line)?;
            }
            there_still
        }
        _ => false,
    })
}

pub(super) fn has_namespace(name: &str) -> bool {
    Path::new(NAMES).join(name).exists()
}

fn has_device(namespace: &str, device: &str, line: Option<&OwnedFd>) -> bool {
    tool::run(&["ip", "-n", namespace, "link", "show", "dev", device], line).is_ok()
}

pub(super) fn veth(pair: &VethPair, line: Option<&OwnedFd>) -> Result<(), Failure> {
    let ([a, b], device) = (&pair.namespaces, pair.device.as_str());
    let add = ["ip", "-n", a, "link", "add", device, "type", "veth", "peer", "name", device];
    tool::run(&[&add[..], &["netns", b]].concat(), line)?;
    for (name, address) in pair.namespaces.iter().zip(&pair.addresses) {
        let address = format!("{address}/30");
        tool::run(&["ip", "-n", name, "addr", "add", &address, "dev", device], line)?;
        tool::run(&["ip", "-n", name, "link", "set", device, "up"], line)?;
    }
    Ok(())
}

pub(super) fn filter(
    namespace: &str,
    table: &str,
    rule: Rule,
    line: Option<&OwnedFd>,
) -> Result<(), Failure> {
    let condition = match rule {
        Rule::Drop => String::new(),
        Rule::Loss(percent) => format!("numgen random mod 100 < {percent} "),
    };
    // What a host says to itself is not the link's.
    let text = format!(
        "add table inet {table}; \
         add chain inet {table} in {{ type filter hook input priority 0; }}; \
         add rule inet {table} in iifname != \"lo\" {condition}counter drop"
    );
    nft(namespace, &[&text], line).map(|_| ())
}

pub(super) fn nft(
    namespace: &str,
    words: &[&str],
    line: Option<&OwnedFd>,
) -> Result<String, Failure> {
    let place = format!("--net={NAMES}/{namespace}");
    tool::run(&[&["nsenter", &place, "--", "nft"], words].concat(), line)
}

fn remove_namespace(
    name: &str,
    before: Option<&str>,
    line: Option<&OwnedFd>,
) -> Result<bool, Failure> {
    let was_there = has_namespace(name);
    if was_there {
        tool::run(&["ip", "netns", "del", name], line)?;
    }
    // The folder of names was not there before the first of ours: it goes with the last.
    let empty = fs::read_dir(NAMES).is_ok_and(|mut names| names.next().is_none());
    if before == Some("false") && empty && residue::is_mounted(Path::new(NAMES))? {
        let unmounted = rustix::mount::unmount(NAMES, rustix::mount::UnmountFlags::empty());
        unmounted.map_err(|error| failure::io(Path::new(NAMES), "unmount", error))?;
        fs::remove_dir(NAMES).map_err(|error| failure::io(Path::new(NAMES), "remove", error))?;
    }
    Ok(was_there)
}

/// Waits until the device is up and the other end too.
fn is_up(namespace: &str, device: &str, line: Option<&OwnedFd>) -> Result<(), Failure> {
    let argv = ["ip", "-n", namespace, "-o", "link", "show", "dev", device];
    let mut found = String::new();
    for _ in 0..100 {
        found = tool::run(&argv, line)?;
        if found.contains("LOWER_UP") && !found.contains("NO-CARRIER") {
            return Ok(());
        }
        pause_ms(10);
    }
    Err(Failure::Differs { what: argv.join(" "), found, wanted: "LOWER_UP".to_owned() })
}
