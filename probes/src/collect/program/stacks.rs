//! Addresses to files, and call chains by number. Files come from the kernel's records of mappings, and
//! of a program that ran already from /proc/PID/maps.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::rc::Rc;

use super::build_id;
use crate::collect::profile::Glance;
use crate::record::program::{KERNEL, ModuleRow, NOWHERE, ProgramStacks, STACK_NO_ROOM, StackRow};

/// Stacks that are kept apart.
const STACKS_MAX: usize = 1 << 16;
/// Files that are kept apart.
const MODULES_MAX: usize = 4_096;
/// Processes whose mappings are known at once.
const PROCESSES_MAX: usize = 4_096;

#[derive(Debug, Clone, Copy)]
struct Mapped {
    end: u64,
    offset: u64,
    module: u32,
}

/// What is mapped as code in a process, by first address.
type Space = BTreeMap<u64, Mapped>;

/// Stacks, modules and functions of the kernel, with those that are new.
#[derive(Debug, Default)]
pub(super) struct Stacks {
    spaces: HashMap<u32, Rc<Space>>,
    modules: HashMap<ModuleRow, u32>,
    stacks: HashMap<StackRow, u32>,
    kernel: Kernel,
    fresh: ProgramStacks,
    /// Samples whose stack found no room.
    pub(super) no_room: u64,
}

impl Stacks {
    /// A process maps a file as code.
    pub(super) fn map(&mut self, process: u32, range: (u64, u64), offset: u64, file: ModuleRow) {
        let module = self.module(file);
        let (from, len) = range;
        let end = from.saturating_add(len);
        if self.spaces.len() >= PROCESSES_MAX && !self.spaces.contains_key(&process) {
            return;
        }
        let space = Rc::make_mut(self.spaces.entry(process).or_default());
        // What lay there is gone, in whole or in part; parts of code are not unmapped by any loader.
        let covered: Vec<u64> = space
            .range(..end)
            .filter(|(_, mapped)| mapped.end > from)
            .map(|(start, _)| *start)
            .collect();
        for start in covered {
            space.remove(&start);
        }
        space.insert(from, Mapped { end, offset, module });
    }

    /// A process executes another program.
    pub(super) fn executed(&mut self, process: u32) {
        self.spaces.remove(&process);
    }

    /// A process is a copy of another.
    pub(super) fn forked(&mut self, parent: u32, process: u32) {
        let room = self.spaces.len() < PROCESSES_MAX;
        if let Some(space) = self.spaces.get(&parent).filter(|_| room).cloned() {
            self.spaces.insert(process, space);
        }
    }

    /// A process has ended.
    pub(super) fn ended(&mut self, process: u32) {
        self.spaces.remove(&process);
    }

    /// Reads what a process that ran already has mapped. Reads the head of each file.
    pub(super) fn read_maps(&mut self, process: u32) {
        let text = fs::read_to_string(format!("/proc/{process}/maps")).unwrap_or_default();
        for line in text.lines() {
            let Some((range, offset, path)) = mapping(line) else { continue };
            // As the process sees it, which may not be as we do.
            let place = format!("/proc/{process}/root{path}");
            let build_id = if path.starts_with('/') { build_id::of(&place) } else { Vec::new() };
            let file = ModuleRow { path: path.to_owned(), build_id };
            self.map(process, (range.0, range.1 - range.0), offset, file);
        }
    }

    fn module(&mut self, file: ModuleRow) -> u32 {
        // Code that no file holds: compiled at run time, or the kernel's page.
        if file.path.starts_with("//anon") || file.path.is_empty() {
            return NOWHERE;
        }
        if let Some(&known) = self.modules.get(&file) {
            return known;
        }
        if self.modules.len() >= MODULES_MAX {
            return NOWHERE;
        }
        let number = u32::try_from(self.modules.len()).unwrap_or(NOWHERE);
        self.fresh.modules.push(file.clone());
        self.modules.insert(file, number);
        number
    }

    /// The number of a call chain of a process.
    pub(super) fn stack(&mut self, process: u32, kernel: &[u64], user: &[u64], cut: bool) -> u32 {
        let mut frames = Vec::with_capacity(kernel.len() + user.len());
        for &address in kernel {
            frames.push((KERNEL, self.kernel.function(address, &mut self.fresh.kernel)));
        }
        let space = self.spaces.get(&process);
        for &address in user {
            let found = space.and_then(|space| space.range(..=address).next_back());
            let inside =
                found.filter(|(_, mapped)| address < mapped.end && mapped.module != NOWHERE);
            frames.push(match inside {
                Some((from, mapped)) => (mapped.module, address - from + mapped.offset),
                None => (NOWHERE, address),
            });
        }
        let row = StackRow { frames, cut };
        if let Some(&known) = self.stacks.get(&row) {
            return known;
        }
        if self.stacks.len() >= STACKS_MAX {
            self.no_room += 1;
            return STACK_NO_ROOM;
        }
        let number = u32::try_from(self.stacks.len()).unwrap_or(STACK_NO_ROOM);
        self.fresh.stacks.push(row.clone());
        self.stacks.insert(row, number);
        number
    }

    /// What is new since the last call.
    pub(super) fn fresh(&mut self) -> ProgramStacks {
        std::mem::take(&mut self.fresh)
    }
}

/// Puts call chains of this process into files; returns them, and the number of each. Reads /proc/self/maps and the head
/// of every file that is mapped as code, and with frames of the kernel all of /proc/kallsyms.
#[must_use]
pub fn placed(glances: &[Glance]) -> (ProgramStacks, Vec<u32>) {
    let (mut stacks, own) = (Stacks::default(), std::process::id());
    stacks.read_maps(own);
    let number = |of: &Glance| stacks.stack(own, &of.kernel, &of.user, of.cut);
    let numbers = glances.iter().map(number).collect();
    (only_referred(stacks.fresh()), numbers)
}

/// Without the modules in which no frame lies.
fn only_referred(mut stacks: ProgramStacks) -> ProgramStacks {
    let mut kept: Vec<ModuleRow> = Vec::new();
    for (module, _) in stacks.stacks.iter_mut().flat_map(|stack| &mut stack.frames) {
        let Some(row) = stacks.modules.get(*module as usize) else { continue };
        let at = kept.iter().position(|known| known == row).unwrap_or_else(|| {
            kept.push(row.clone());
            kept.len() - 1
        });
        *module = u32::try_from(at).unwrap_or(NOWHERE);
    }
    ProgramStacks { modules: kept, ..stacks }
}

/// Range, offset and path of a line of /proc/PID/maps that holds code.
fn mapping(line: &str) -> Option<((u64, u64), u64, &str)> {
    let mut words = line.splitn(6, ' ');
    let (range, flags, offset) = (words.next()?, words.next()?, words.next()?);
    let path = words.nth(2).unwrap_or("").trim_start();
    let (from, end) = range.split_once('-')?;
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let (from, end, offset) = (hex(from)?, hex(end)?, hex(offset)?);
    (flags.contains('x') && end > from).then_some(((from, end), offset, path))
}

/// Functions of the kernel by address, read when the first is asked for: a few MiB.
#[derive(Debug, Default)]
struct Kernel {
    functions: Option<Vec<(u64, String)>>,
    told: HashMap<u64, ()>,
}

impl Kernel {
    /// Start of the function around an address, and its name into `fresh` when it is new; the address
    /// itself where the kernel hides its functions.
    fn function(&mut self, address: u64, fresh: &mut Vec<(u64, String)>) -> u64 {
        let functions = self.functions.get_or_insert_with(|| {
            kallsyms(&fs::read_to_string("/proc/kallsyms").unwrap_or_default())
        });
        let end = functions.partition_point(|(start, _)| *start <= address);
        let Some((start, name)) = end.checked_sub(1).and_then(|at| functions.get(at)) else {
            return address;
        };
        if self.told.insert(*start, ()).is_none() {
            fresh.push((*start, name.clone()));
        }
        *start
    }
}

/// Lines `address type name [module]` of functions, sorted; none where addresses are hidden as zeros.
fn kallsyms(text: &str) -> Vec<(u64, String)> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let (address, kind, name) = (words.next()?, words.next()?, words.next()?);
        let address = u64::from_str_radix(address, 16).ok().filter(|&address| address > 0)?;
        matches!(kind, "t" | "T" | "w" | "W").then(|| (address, name.to_owned()))
    };
    let mut functions: Vec<(u64, String)> = text.lines().filter_map(line).collect();
    functions.sort_by_key(|(address, _)| *address);
    functions.dedup_by_key(|(address, _)| *address);
    functions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> ModuleRow {
        ModuleRow { path: path.to_owned(), build_id: Vec::new() }
    }

    #[test]
    fn an_address_is_an_offset_in_the_file_that_lies_there_now() {
        let mut stacks = Stacks::default();
        stacks.map(1, (0x1000, 0x1000), 0x400, file("/bin/a"));
        stacks.forked(1, 2);
        stacks.map(1, (0x1800, 0x1000), 0, file("/bin/b"));
        stacks.map(1, (0x9000, 0x1000), 0, file("//anon"));
        let one = stacks.stack(1, &[], &[0x1900, 0x1010, 0x9010, 0x27ff, 0x2800], false);
        let two = stacks.stack(2, &[], &[0x1900], false);
        assert_eq!(stacks.stack(2, &[], &[0x1900], false), two);
        let fresh = stacks.fresh();
        let paths: Vec<&str> = fresh.modules.iter().map(|module| &*module.path).collect();
        assert_eq!(paths, ["/bin/a", "/bin/b"]);
        let frames = &fresh.stacks[one as usize].frames;
        let nowhere = |address| (NOWHERE, address);
        let expected = [(1, 0x100), nowhere(0x1010), nowhere(0x9010), (1, 0xfff), nowhere(0x2800)];
        assert_eq!(frames[..], expected, "what was mapped over is gone");
        assert_eq!(fresh.stacks[two as usize].frames[..], [(0, 0xd00)]);
        stacks.executed(1);
        stacks.stack(1, &[], &[0x1900], true);
        assert_eq!(stacks.fresh().stacks[0].frames[..], [(NOWHERE, 0x1900)]);
    }

    #[test]
    fn lines_of_maps_and_kallsyms() {
        let line = "55d0-55f0 r-xp 00001000 fe:00 12345      /usr/bin/a b";
        assert_eq!(mapping(line), Some(((0x55d0, 0x55f0), 0x1000, "/usr/bin/a b")));
        assert_eq!(mapping("55d0-55f0 rw-p 00001000 fe:00 12345 /x"), None);
        assert_eq!(mapping("7f00-7f10 r-xp 00000000 00:00 0 "), Some(((0x7f00, 0x7f10), 0, "")));
        let text = "ffff20 T b\nffff10 t a\nffff18 d data\n0 T hidden\nffff10 t alias [m]\n";
        assert_eq!(kallsyms(text), [(0xffff10, "a".to_owned()), (0xffff20, "b".to_owned())]);
    }

    #[test]
    fn this_program_has_code_in_a_file_with_a_build_id() {
        let mut stacks = Stacks::default();
        stacks.read_maps(std::process::id());
        let here = kallsyms as fn(&str) -> Vec<(u64, String)>;
        let stack = stacks.stack(std::process::id(), &[], &[here as usize as u64], false);
        let fresh = stacks.fresh();
        let (module, _) = fresh.stacks[stack as usize].frames[0];
        let this = std::env::current_exe().unwrap();
        assert_eq!(fresh.modules[module as usize].path, this.to_string_lossy());
    }
}
