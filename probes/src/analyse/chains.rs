//! Names of call chains that were recorded as offsets in files, and as addresses in the kernel.

use std::io;

use object::{Object as _, ObjectSegment as _};

use super::symbols::{Function, ReadFile, Resolved, Symbols, symbolise};
use crate::record::heap::{Frame, HeapSnapshot, Module, Site};
use crate::record::program::{KERNEL, ModuleRow, NOWHERE, ProgramStacks, StackRow};

/// Chains as the heap's analysis has them, one site each, and their names.
pub(super) struct Named {
    pub(super) snapshot: HeapSnapshot,
    pub(super) symbols: Symbols,
}

/// Modules, chains over them, and functions of the kernel by address.
type Chains<'a, K> = (&'a [ModuleRow], &'a [StackRow], K);

/// Names chains, offline. `extra` and `read` as in [`symbolise`].
pub(super) fn named<'a>(
    (modules, stacks, kernel): Chains<'_, impl Iterator<Item = (u64, &'a str)>>,
    extra: &[String],
    read: &ReadFile<'_>,
) -> Named {
    let mut snapshot = HeapSnapshot::default();
    let loads: Vec<Vec<Load>> = modules.iter().map(|module| loads(module, extra, read)).collect();
    for module in modules {
        let (path, build_id) = (module.path.clone(), module.build_id.clone());
        snapshot.modules.push(Module { path, build_id, ..Module::default() });
    }
    let (in_kernel, nowhere) = (place(snapshot.modules.len()), place(snapshot.modules.len() + 1));
    for path in ["[kernel]", "[no file]"] {
        snapshot.modules.push(Module { path: path.to_owned(), ..Module::default() });
    }
    for (id, stack) in stacks.iter().enumerate() {
        let frames = stack.frames.iter().enumerate().map(|(depth, &(module, offset))| {
            match module {
                KERNEL => Frame { module: in_kernel, address: offset },
                NOWHERE => Frame { module: nowhere, address: 0 },
                _ => {
                    let loads = loads.get(module as usize).map_or(&[][..], Vec::as_slice);
                    // All but the innermost are return addresses, and looked up one before.
                    let address = in_memory(loads, offset).wrapping_add(u64::from(depth == 0));
                    Frame { module, address }
                }
            }
        });
        let (id, frames) = (place(id), frames.collect());
        snapshot.sites.push(Site { id, frames, truncated: stack.cut });
    }
    let mut symbols = symbolise(&snapshot, extra, read);
    name_kernel(kernel, &mut symbols, (in_kernel, nowhere));
    Named { snapshot, symbols }
}

fn place(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

fn name_kernel<'a>(
    functions: impl Iterator<Item = (u64, &'a str)>,
    symbols: &mut Symbols,
    (kernel, nowhere): (u32, u32),
) {
    let function = |name: &str| {
        let name = name.to_owned();
        vec![Function { mangled: name.clone(), name, file: None, line: None }]
    };
    for (address, name) in functions {
        symbols.frames.insert(Frame { module: kernel, address }, function(name));
        symbols.modules[kernel as usize] = Resolved::Unused;
    }
    symbols
        .frames
        .insert(Frame { module: nowhere, address: 0 }, function("(code that lies in no file)"));
    symbols.modules[nowhere as usize] = Resolved::Unused;
}

/// The functions of each chain, innermost first, inlined ones among them, with file and line where they are known; a
/// frame that has no name is its module and the address in it. `extra` and `read` as in [`symbolise`].
#[must_use]
pub fn name_chains(
    stacks: &ProgramStacks,
    extra: &[String],
    read: &ReadFile<'_>,
) -> Vec<Vec<String>> {
    let kernel = stacks.kernel.iter().map(|(address, name)| (*address, name.as_str()));
    let Named { snapshot, symbols } = named((&stacks.modules, &stacks.stacks, kernel), extra, read);
    let lines = |frame: &Frame| {
        let functions = symbols.of(frame);
        if functions.is_empty() {
            let module = snapshot.modules.get(frame.module as usize);
            let path = module.map_or("?", |module| module.path.as_str());
            let name = path.rsplit('/').next().unwrap_or(path);
            return vec![format!("{name}+{:#x}", frame.address)];
        }
        functions.iter().map(line).collect()
    };
    snapshot.sites.iter().map(|site| site.frames.iter().flat_map(lines).collect()).collect()
}

fn line(function: &Function) -> String {
    match (&function.file, function.line) {
        (Some(file), Some(line)) => format!("{} ({file}:{line})", function.name),
        (Some(file), None) => format!("{} ({file})", function.name),
        _ => function.name.clone(),
    }
}

/// A loaded part of a file: offset, bytes, address.
type Load = (u64, u64, u64);

/// The loaded parts of a module's file; none where it cannot be read, and its addresses stay offsets.
fn loads(module: &ModuleRow, extra: &[String], read: &ReadFile<'_>) -> Vec<Load> {
    let path = module.path.trim_end_matches(" (deleted)");
    let name = path.rsplit('/').next().unwrap_or(path);
    let mut places: Vec<String> = extra.iter().map(|dir| format!("{dir}/{name}")).collect();
    places.push(path.to_owned());
    let first = |place: &String| -> io::Result<Vec<Load>> {
        let bytes = read(place)?;
        let file = object::File::parse(&*bytes).map_err(io::Error::other)?;
        let part = |segment: object::Segment<'_, '_>| {
            let (offset, length) = segment.file_range();
            (offset, length, segment.address())
        };
        Ok(file.segments().map(part).collect())
    };
    places.iter().find_map(|place| first(place).ok()).unwrap_or_default()
}

fn in_memory(loads: &[Load], offset: u64) -> u64 {
    let inside = |(from, length, _): &&Load| offset >= *from && offset - from < *length;
    loads
        .iter()
        .find(inside)
        .map_or(offset, |(from, _, address)| (offset - from).wrapping_add(*address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_an_address_by_the_part_that_holds_it() {
        let loads = [(0, 0x1000, 0), (0x1000, 0x500, 0x2000)];
        assert_eq!([0x10, 0x1010, 0x9000].map(|at| in_memory(&loads, at)), [0x10, 0x2010, 0x9000]);
    }

    #[test]
    fn what_has_no_name_is_an_address_in_its_module() {
        let module = ModuleRow { path: "/nowhere/prog".to_owned(), build_id: vec![1] };
        let frames = vec![(0, 0x40), (KERNEL, 0xff10), (NOWHERE, 0x99)];
        let stacks = ProgramStacks {
            modules: vec![module],
            stacks: vec![StackRow { frames, cut: false }],
            kernel: vec![(0xff10, "do_work".to_owned())],
        };
        let gone = |_: &str| Err(io::ErrorKind::NotFound.into());
        let named = name_chains(&stacks, &[], &gone);
        assert_eq!(named, [["prog+0x41", "do_work", "(code that lies in no file)"]]);
    }
}
