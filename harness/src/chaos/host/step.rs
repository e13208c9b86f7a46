//! One thing that is done to the host, as a value: it can be shown before it is done, stored, and undone.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::process::Process;
use super::subject::Run;

/// What is written to a knob when it is undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Revert {
    /// What it read before.
    Before,
    /// This; the knob then reads as before. For knobs that are written otherwise than they read.
    Value(String),
}

/// Two namespaces with a cable between them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VethPair {
    /// Names of the two network namespaces.
    pub namespaces: [String; 2],
    /// Name of the device, the same in both.
    pub device: String,
    /// Addresses of the two ends, in one network of 30 bits.
    pub addresses: [String; 2],
}

/// What a filter does to what comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rule {
    /// Drops all.
    Drop,
    /// Drops this share at random, percent.
    Loss(u8),
}

/// Something that is done, with all that is needed to do it. Undone by the `undo` of a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Makes a control group. Undone: what is in it is killed, and it is removed.
    MakeGroup {
        /// Its folder.
        dir: PathBuf,
    },
    /// Makes a folder. Undone: removed, if it is empty.
    MakeDir {
        /// The folder.
        dir: PathBuf,
    },
    /// Makes an image with an ext4 file system. Undone: removed.
    MakeImage {
        /// The image.
        file: PathBuf,
        /// Its size; the file is sparse.
        bytes: u64,
    },
    /// Mounts an image. Undone: unmounted; the loop device goes with it.
    Mount {
        /// The image.
        image: PathBuf,
        /// Where.
        dir: PathBuf,
    },
    /// Shuts the file system of an image down as a power cut does. Undone: mounted again, which replays its journal.
    PowerCut {
        /// The image.
        image: PathBuf,
        /// Where it is mounted.
        dir: PathBuf,
    },
    /// Fills the file system of an image with a file. Undone: the file is removed.
    Fill {
        /// The image.
        image: PathBuf,
        /// Where it is mounted.
        dir: PathBuf,
    },
    /// Writes a knob of the kernel. Undone: written back, unless it reads as somebody else wrote it.
    Write {
        /// The file.
        file: PathBuf,
        /// What is written.
        value: String,
        /// What is written to undo it.
        revert: Revert,
    },
    /// Has a unified group hand a controller down to the groups below it. Undone: no more. That no other group began to
    /// use it meanwhile is not known: a host whose root hands it down anyway is left alone.
    HandDown {
        /// Folder of the group.
        dir: PathBuf,
        /// The controller.
        controller: String,
    },
    /// Moves a process with its threads into a group. Undone: moved to where it was.
    Enter {
        /// Folder of the group.
        group: PathBuf,
        /// The process.
        process: Process,
    },
    /// Moves one thread into a group of version 1. Undone: moved to the group above.
    EnterThread {
        /// Folder of the group.
        group: PathBuf,
        /// Number of the thread.
        tid: u32,
    },
    /// Starts a process. Undone: killed.
    Start {
        /// How.
        run: Run,
    },
    /// Limits the open files of a running process. Undone: the limit that was.
    OpenFiles {
        /// The process.
        process: Process,
        /// Files it may have open.
        max: u64,
    },
    /// Sets the nice value. Undone: set back, for which a user other than root may lack the right.
    Nice {
        /// The process.
        process: Process,
        /// Nice value, -20 to 19.
        nice: i32,
    },
    /// Stops a whole process with SIGSTOP. Undone: SIGCONT.
    Stop {
        /// The process.
        process: Process,
    },
    /// Kills a process. Cannot be undone; to start it again is the supervisor's part.
    Kill {
        /// The process.
        process: Process,
    },
    /// Makes a named network namespace, with its loopback up. Undone: deleted.
    Namespace {
        /// Its name.
        name: String,
    },
    /// Joins two namespaces. Undone: the devices are deleted.
    Veth {
        /// The two ends.
        pair: VethPair,
    },
    /// Takes a device down. Undone: up.
    LinkDown {
        /// Namespace of the device.
        namespace: String,
        /// Its name.
        device: String,
    },
    /// Filters what comes in to a namespace. Undone: the filter is deleted.
    Filter {
        /// The namespace.
        namespace: String,
        /// Name of the filter's table.
        table: String,
        /// What it does.
        rule: Rule,
    },
}

impl Step {
    /// What undoing it does, in words.
    #[must_use]
    pub fn undo_text(&self) -> String {
        let at = Path::display;
        match self {
            Self::MakeGroup { dir } => format!("kill what is in group {} and remove it", at(dir)),
            Self::MakeDir { dir } => format!("remove folder {}", at(dir)),
            Self::MakeImage { file, .. } => format!("remove {}", at(file)),
            Self::Mount { dir, .. } => format!("unmount {}", at(dir)),
            Self::PowerCut { image, dir } => {
                format!("unmount {} and mount {} there again", at(dir), at(image))
            }
            Self::Fill { dir, .. } => format!("remove {}", at(&fill_file(dir))),
            Self::Write { file, revert: Revert::Before, .. } => {
                format!("write what was there before to {}", at(file))
            }
            Self::Write { file, revert: Revert::Value(value), .. } => {
                format!("write {value:?} to {}", at(file))
            }
            Self::HandDown { dir, controller } => {
                format!("hand {controller} down no more in {}", at(dir))
            }
            Self::Enter { process, .. } => format!("move {process} to the group it was in"),
            Self::EnterThread { tid, .. } => format!("move thread {tid} to the group above"),
            Self::Start { run } => format!("kill {}", run.program.display()),
            Self::OpenFiles { process, .. } => format!("set the limit that {process} had"),
            Self::Nice { process, .. } => format!("set the nice value that {process} had"),
            Self::Stop { process } => format!("send SIGCONT to {process}"),
            Self::Kill { .. } => "nothing: the supervisor starts it again".to_owned(),
            Self::Namespace { name } => format!("delete network namespace {name}"),
            Self::Veth { pair } => format!("delete device {} and its peer", pair.device),
            Self::LinkDown { namespace, device } => format!("set {device} in {namespace} up"),
            Self::Filter { namespace, table, .. } => {
                format!("delete filter {table} in {namespace}")
            }
        }
    }
}

/// The file that fills a file system.
pub(super) fn fill_file(dir: &Path) -> PathBuf {
    dir.join("tailbeam-chaos-fill")
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = Path::display;
        match self {
            Self::MakeGroup { dir } => write!(f, "make group {}", at(dir)),
            Self::MakeDir { dir } => write!(f, "make folder {}", at(dir)),
            Self::MakeImage { file, bytes } => {
                write!(f, "make {} with an ext4 of {bytes} bytes", at(file))
            }
            Self::Mount { image, dir } => write!(f, "mount {} at {}", at(image), at(dir)),
            Self::PowerCut { dir, .. } => {
                write!(f, "shut the file system at {} down, unsynced data is lost", at(dir))
            }
            Self::Fill { dir, .. } => write!(f, "fill {} until it is full", at(&fill_file(dir))),
            Self::Write { file, value, .. } => write!(f, "write {value:?} to {}", at(file)),
            Self::HandDown { dir, controller } => {
                write!(f, "hand {controller} down in {}", at(dir))
            }
            Self::Enter { group, process } => write!(f, "move {process} to group {}", at(group)),
            Self::EnterThread { group, tid } => {
                write!(f, "move thread {tid} to group {}", at(group))
            }
            Self::Start { run } => write!(f, "start {run}"),
            Self::OpenFiles { process, max } => {
                write!(f, "limit {process} to {max} open files")
            }
            Self::Nice { process, nice } => write!(f, "set the nice value of {process} to {nice}"),
            Self::Stop { process } => write!(f, "send SIGSTOP to {process}"),
            Self::Kill { process } => write!(f, "send SIGKILL to {process}"),
            Self::Namespace { name } => write!(f, "make network namespace {name}"),
            Self::Veth { pair } => write!(
                f,
                "join {} and {} by devices {} with addresses {} and {}",
                pair.namespaces[0],
                pair.namespaces[1],
                pair.device,
                pair.addresses[0],
                pair.addresses[1]
            ),
            Self::LinkDown { namespace, device } => write!(f, "set {device} in {namespace} down"),
            Self::Filter { namespace, rule: Rule::Drop, .. } => {
                write!(f, "drop what comes in to {namespace}")
            }
            Self::Filter { namespace, rule: Rule::Loss(percent), .. } => {
                write!(f, "drop {percent} % of what comes in to {namespace}")
            }
        }
    }
}
