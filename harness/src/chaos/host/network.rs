//! Network namespaces, the cable between them, and its filters: by `ip` and `nft`.
//!
//! A namespace is kept by a mount on a file of its own (network_namespaces(7), unshare(1)). Not by `ip netns`: with its
//! first name on a host that mounts `/run/netns` onto itself, and leaves that mount when the name goes. Of several
//! supervisors none could know whether the mount is its own to take away.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fd::OwnedFd;

use super::failure::{self, Failure};
use super::process::pause_ms;
use super::residue;
use super::step::{Rule, Step, VethPair};
use super::tool;

/// The file that keeps a namespace. Names begin with ours and carry the run's.
pub(super) fn file_of(name: &str) -> PathBuf {
    Path::new(residue::KEPT).join(name)
}

/// Undoes a step of the network; `false`: its thing is not there.
pub(super) fn undo(step: &Step, line: Option<&OwnedFd>) -> Result<bool, Failure> {
    Ok(match step {
        Step::Namespace { name } => remove_namespace(name)?,
        Step::Veth { pair } => {
            let [name, _] = &pair.namespaces;
            let there_still = has_device(name, &pair.device, line)?;
            if there_still {
                inside(name, &["ip", "link", "del", &pair.device], line)?;
            }
            there_still
        }
        Step::LinkDown { namespace, device } => {
            let there_still = has_device(namespace, device, line)?;
            if there_still {
                set_link(namespace, device, "up", line)?;
                is_up(namespace, device, line)?;
            }
            there_still
        }
        Step::Filter { namespace, table, .. } => {
            let list = ["list", "table", "inet", table];
            let there_still = has_namespace(namespace)? && is_there(nft(namespace, &list, line))?;
            if there_still {
                nft(namespace, &["delete", "table", "inet", table], line)?;
            }
            there_still
        }
        _ => false,
    })
}

pub(super) fn has_namespace(name: &str) -> Result<bool, Failure> {
    residue::is_mounted(&file_of(name))
}

/// Runs a tool in a namespace.
pub(super) fn inside(
    namespace: &str,
    words: &[&str],
    line: Option<&OwnedFd>,
) -> Result<String, Failure> {
    let place = net_of(namespace);
    tool::run(&[&["nsenter", &place, "--"], words].concat(), line)
}

/// As nsenter(1) and unshare(1) are told of a namespace.
pub(super) fn net_of(namespace: &str) -> String {
    format!("--net={}", file_of(namespace).display())
}

pub(super) fn make_namespace(name: &str, line: Option<&OwnedFd>) -> Result<(), Failure> {
    let file = file_of(name);
    fs::File::create_new(&file).map_err(|error| failure::io(&file, "make", error))?;
    tool::run(&["unshare", &net_of(name), "true"], line)?;
    inside(name, &["ip", "link", "set", "lo", "up"], line).map(|_| ())
}

pub(super) fn set_link(
    namespace: &str,
    device: &str,
    state: &str,
    line: Option<&OwnedFd>,
) -> Result<(), Failure> {
    inside(namespace, &["ip", "link", "set", device, state], line).map(|_| ())
}

fn has_device(namespace: &str, device: &str, line: Option<&OwnedFd>) -> Result<bool, Failure> {
    let show = ["ip", "link", "show", "dev", device];
    Ok(has_namespace(namespace)? && is_there(inside(namespace, &show, line))?)
}

/// What a tool that lists one thing says of it. One that failed otherwise says nothing: a link that is cut is not taken for
/// one that is gone.
fn is_there(listed: Result<String, Failure>) -> Result<bool, Failure> {
    match listed {
        Ok(_) => Ok(true),
        // ip(8) and nft(8).
        Err(Failure::Tool { text, .. })
            if ["does not exist", "No such file or directory"]
                .iter()
                .any(|of| text.contains(of)) =>
        {
            Ok(false)
        }
        Err(failure) => Err(failure),
    }
}

pub(super) fn veth(pair: &VethPair, line: Option<&OwnedFd>) -> Result<(), Failure> {
    let ([a, b], device) = (&pair.namespaces, pair.device.as_str());
    let add = ["ip", "link", "add", device, "type", "veth", "peer", "name", device];
    let far = file_of(b).display().to_string();
    inside(a, &[&add[..], &["netns", &far]].concat(), line)?;
    for (name, address) in pair.namespaces.iter().zip(&pair.addresses) {
        let address = format!("{address}/30");
        inside(name, &["ip", "addr", "add", &address, "dev", device], line)?;
        set_link(name, device, "up", line)?;
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
    inside(namespace, &[&["nft"], words].concat(), line)
}

/// Of one that was made in part there is the file, or nothing.
fn remove_namespace(name: &str) -> Result<bool, Failure> {
    let file = file_of(name);
    if residue::is_mounted(&file)? {
        let unmounted = rustix::mount::unmount(&file, rustix::mount::UnmountFlags::DETACH);
        unmounted.map_err(|error| failure::io(&file, "unmount", error))?;
    }
    match fs::remove_file(&file) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failure::io(&file, "remove", error)),
    }
}

/// Waits until the device is up and the other end too.
fn is_up(namespace: &str, device: &str, line: Option<&OwnedFd>) -> Result<(), Failure> {
    let argv = ["ip", "-o", "link", "show", "dev", device];
    let mut found = String::new();
    for _ in 0..100 {
        found = inside(namespace, &argv, line)?;
        if found.contains("LOWER_UP") && !found.contains("NO-CARRIER") {
            return Ok(());
        }
        pause_ms(10);
    }
    Err(Failure::Differs { what: argv.join(" "), found, wanted: "LOWER_UP".to_owned() })
}
