//! Addresses to functions, files and lines, offline: by path of the module and only when its build-id
//! is the one that was running. A module that cannot be resolved is a stated mode with cause and remedy;
//! its frames stay addresses.
//!
//! The caller hands in how a file is read, so that nothing here touches the disk. Debug information is
//! looked for in the file itself, then under `/usr/lib/debug` by build-id, then where `.gnu_debuglink`
//! points. Split DWARF (`.dwo`) and dwz supplements are not followed: their functions are named from the
//! symbol table.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io;

use addr2line::gimli;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};

use crate::Unavailable;
use crate::record::heap::{Frame, HeapSnapshot, Module};

/// Reads a file by path.
pub type ReadFile<'a> = dyn Fn(&str) -> io::Result<Vec<u8>> + 'a;

/// A function at an address; several where the compiler inlined.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Function {
    /// Name as people wrote it.
    pub name: String,
    /// Name as the linker knows it.
    pub mangled: String,
    /// Source file, where line tables name it.
    pub file: Option<String>,
    /// Line, from 1.
    pub line: Option<u32>,
}

/// How well a module could be resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolved {
    /// Functions, files and lines.
    Lines,
    /// Functions of the symbol table; files and lines are unknown for the reason given.
    NamesOnly(Unavailable),
    /// Addresses only, for the reason given.
    Unknown(Unavailable),
    /// No frame lies in it.
    Unused,
}

impl Resolved {
    /// Why something is missing, if anything is.
    #[must_use]
    pub const fn missing(&self) -> Option<&Unavailable> {
        match self {
            Self::NamesOnly(why) | Self::Unknown(why) => Some(why),
            Self::Lines | Self::Unused => None,
        }
    }
}

/// What the frames of a snapshot are called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Symbols {
    /// Functions of a frame, innermost first; a frame without any is not listed.
    pub frames: HashMap<Frame, Vec<Function>>,
    /// One per module of the snapshot, in its order.
    pub modules: Vec<Resolved>,
    /// Modules whose file was used although no build-id could prove that it is the one that ran.
    pub unproven: Vec<usize>,
}

impl Symbols {
    /// Functions of a frame, innermost first; none when it is unknown.
    #[must_use]
    pub fn of(&self, frame: &Frame) -> &[Function] {
        self.frames.get(frame).map_or(&[], Vec::as_slice)
    }
}

/// Resolves every frame of a snapshot. `extra` are directories that are searched first, by file name and
/// by build-id. One module is in memory at a time.
#[must_use]
pub fn symbolise(snapshot: &HeapSnapshot, extra: &[String], read: &ReadFile<'_>) -> Symbols {
    let mut wanted: Vec<Vec<u64>> = vec![Vec::new(); snapshot.modules.len()];
    for frame in snapshot.sites.iter().flat_map(|site| &site.frames) {
        if let Some(list) = wanted.get_mut(frame.module as usize) {
            list.push(frame.address);
        }
    }
    let mut symbols = Symbols::default();
    for (index, (module, mut addresses)) in snapshot.modules.iter().zip(wanted).enumerate() {
        addresses.sort_unstable();
        addresses.dedup();
        let resolved = match addresses.is_empty() {
            true => Resolved::Unused,
            false => resolve(module, &addresses, &Search { extra, read }, |address, functions| {
                let frame = Frame { module: u32::try_from(index).unwrap_or(u32::MAX), address };
                symbols.frames.insert(frame, functions);
            }),
        };
        let known = !matches!(resolved, Resolved::Unused | Resolved::Unknown(_));
        if known && module.build_id.is_empty() {
            symbols.unproven.push(index);
        }
        symbols.modules.push(resolved);
    }
    symbols
}

struct Search<'a> {
    extra: &'a [String],
    read: &'a ReadFile<'a>,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unknown(cause: String, remedy: String) -> Unavailable {
    Unavailable { source: "symbols", cause, remedy }
}

fn resolve(
    module: &Module,
    addresses: &[u64],
    search: &Search<'_>,
    mut found: impl FnMut(u64, Vec<Function>),
) -> Resolved {
    let (path, bytes) = match search.program(module) {
        Ok(file) => file,
        Err(why) => return Resolved::Unknown(why),
    };
    let debug = search.debug(module, &path, &bytes);
    let debug_bytes = debug.as_deref().unwrap_or(&bytes);
    let parsed = object::File::parse(&*bytes).and_then(|file| {
        let debug = object::File::parse(debug_bytes)?;
        Ok((file, debug))
    });
    let (file, debug) = match parsed {
        Ok(files) => files,
        Err(error) => return Resolved::Unknown(not_elf(&path, &error)),
    };
    let mut names = SymbolTable::of(&file);
    names.add(&debug);
    // Sections that cannot be read are as good as none.
    let sections = gimli::DwarfSections::load(|id| section(&debug, id.name())).unwrap_or_default();
    let dwarf = has_lines(&debug).then(|| Dwarf::from_dwarf(sections.borrow(slice)).ok()).flatten();
    let (mut lines, mut named) = (0usize, 0usize);
    for &address in addresses {
        // A return address belongs to the call before it.
        let at = address.saturating_sub(1);
        let functions = functions_at(dwarf.as_ref(), &names, at);
        lines += usize::from(functions.iter().any(|function| function.line.is_some()));
        named += usize::from(!functions.is_empty());
        if !functions.is_empty() {
            found(address, functions);
        }
    }
    match (named, lines) {
        (0, _) => Resolved::Unknown(stripped(&path, module)),
        (_, 0) => Resolved::NamesOnly(no_lines(&path, module, dwarf.is_some())),
        _ => Resolved::Lines,
    }
}

/// The machines that we run on are little-endian.
#[expect(clippy::ptr_arg, reason = "gimli hands out its sections by reference to what owns them")]
fn slice<'a>(section: &'a Cow<'_, [u8]>) -> gimli::EndianSlice<'a, gimli::LittleEndian> {
    gimli::EndianSlice::new(section, gimli::LittleEndian)
}

fn has_lines(file: &object::File<'_>) -> bool {
    [".debug_line", ".zdebug_line"].iter().any(|name| file.section_by_name(name).is_some())
}

fn section<'data>(
    file: &object::File<'data>,
    name: &str,
) -> Result<Cow<'data, [u8]>, object::read::Error> {
    file.section_by_name(name)
        .map_or(Ok(Cow::Borrowed(&[][..])), |section| section.uncompressed_data())
}

impl Search<'_> {
    /// The file of a module, proven by its build-id where it has one.
    fn program(&self, module: &Module) -> Result<(String, Vec<u8>), Unavailable> {
        // The kernel appends this when the file was replaced; what lies there now may be the same build.
        let path = module.path.trim_end_matches(" (deleted)");
        if path.is_empty() || path.starts_with('[') {
            return Err(unknown(
                format!("{} is not a file", if path.is_empty() { "the mapping" } else { path }),
                "code made at run time has no symbols on disk".to_owned(),
            ));
        }
        let name = path.rsplit('/').next().unwrap_or(path);
        let mut other = None;
        let candidates = self.extra.iter().map(|dir| format!("{dir}/{name}"));
        for candidate in candidates.chain([path.to_owned()]) {
            match (self.read)(&candidate) {
                Ok(bytes) => match proven(module, &bytes) {
                    Ok(()) => return Ok((candidate, bytes)),
                    Err(found) => other = Some(mismatch(&candidate, &found, module)),
                },
                Err(error) if candidate == path && other.is_none() => {
                    other = Some(unreadable(path, &error, module));
                }
                Err(_) => {}
            }
        }
        Err(other.unwrap_or_else(|| unreadable(path, &io::ErrorKind::NotFound.into(), module)))
    }

    /// A file with the module's debug information, when it does not lie in the module.
    fn debug(&self, module: &Module, path: &str, bytes: &[u8]) -> Option<Vec<u8>> {
        let file = object::File::parse(bytes).ok()?;
        if file.section_by_name(".debug_info").is_some() {
            return None;
        }
        let id = hex(&module.build_id);
        let by_id = |root: &str| {
            (id.len() > 2).then(|| format!("{root}/.build-id/{}/{}.debug", &id[..2], &id[2..]))
        };
        let mut candidates: Vec<String> = self.extra.iter().filter_map(|dir| by_id(dir)).collect();
        candidates.extend(by_id("/usr/lib/debug"));
        if let Ok(Some((link, _))) = file.gnu_debuglink() {
            let link = String::from_utf8_lossy(link);
            let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
            candidates.extend(self.extra.iter().map(|extra| format!("{extra}/{link}")));
            candidates.push(format!("{dir}/{link}"));
            candidates.push(format!("{dir}/.debug/{link}"));
            candidates.push(format!("/usr/lib/debug{dir}/{link}"));
        }
        candidates
            .into_iter()
            .filter_map(|candidate| (self.read)(&candidate).ok())
            .find(|bytes| proven(module, bytes).is_ok())
    }
}

/// Whether a file is the build that ran; the other build-id otherwise.
fn proven(module: &Module, bytes: &[u8]) -> Result<(), Option<String>> {
    if module.build_id.is_empty() {
        return Ok(());
    }
    match object::File::parse(bytes).ok().and_then(|file| file.build_id().ok()?.map(hex)) {
        Some(id) if id == hex(&module.build_id) => Ok(()),
        other => Err(other),
    }
}

fn mismatch(path: &str, found: &Option<String>, module: &Module) -> Unavailable {
    let found = found.as_deref().unwrap_or("none");
    let ran = hex(&module.build_id);
    unknown(
        format!("{path} was replaced since the run: its build-id is {found}, the run saw {ran}"),
        "put the file of that build into a directory and name it with --symbols DIR".to_owned(),
    )
}

fn unreadable(path: &str, error: &io::Error, module: &Module) -> Unavailable {
    let id = match module.build_id.is_empty() {
        true => String::new(),
        false => format!(" (build-id {})", hex(&module.build_id)),
    };
    unknown(
        format!("cannot read {path}: {error}"),
        format!("copy the file that ran{id} into a directory and name it with --symbols DIR"),
    )
}

fn not_elf(path: &str, error: &object::read::Error) -> Unavailable {
    unknown(
        format!("{path} is not a readable ELF file: {error}"),
        "name a directory with the file that ran by --symbols DIR".to_owned(),
    )
}

fn stripped(path: &str, module: &Module) -> Unavailable {
    unknown(
        format!("{path} is stripped: no symbol covers its frames"),
        format!("build it without strip, or {}", install_debug(module)),
    )
}

fn no_lines(path: &str, module: &Module, has_dwarf: bool) -> Unavailable {
    let cause = match has_dwarf {
        true => "its debug information does not cover these frames",
        false => "it holds no debug information",
    };
    unknown(
        format!("{path}: {cause}"),
        format!("build it with `debug = \"line-tables-only\"` or -g, or {}", install_debug(module)),
    )
}

fn install_debug(module: &Module) -> String {
    match module.build_id.is_empty() {
        true => "name a directory with an unstripped copy by --symbols DIR".to_owned(),
        false => format!("install the debug file of build-id {}", hex(&module.build_id)),
    }
}

/// Functions of a symbol table: start, end, name; sorted by start.
#[derive(Default)]
struct SymbolTable<'data>(Vec<(u64, u64, &'data str)>);

impl<'data> SymbolTable<'data> {
    fn of(file: &object::File<'data>) -> Self {
        let mut table = Self::default();
        table.add(file);
        table
    }

    fn add(&mut self, file: &object::File<'data>) {
        let functions = file
            .symbols()
            .chain(file.dynamic_symbols())
            .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition())
            .filter_map(|s| Some((s.address(), s.address() + s.size().max(1), s.name().ok()?)));
        self.0.extend(functions);
        self.0.sort_unstable();
        self.0.dedup();
    }

    /// The function around an address; a symbol without a size covers one byte and so nothing by chance.
    fn containing(&self, address: u64) -> Option<&'data str> {
        let end = self.0.partition_point(|&(start, ..)| start <= address);
        // Aliases and local labels: the nearest few may end too early.
        let near = self.0[end.saturating_sub(16)..end].iter().rev();
        near.into_iter().find(|&&(_, until, _)| address < until).map(|&(.., name)| name)
    }
}

type Dwarf<'a> = addr2line::Context<gimli::EndianSlice<'a, gimli::LittleEndian>>;

fn functions_at(dwarf: Option<&Dwarf<'_>>, names: &SymbolTable<'_>, at: u64) -> Vec<Function> {
    let mut functions = dwarf.map_or_else(Vec::new, |dwarf| inlined_at(dwarf, at));
    let symbol = names.containing(at);
    match (functions.last_mut(), symbol) {
        (Some(last), Some(symbol)) if says_more(symbol, last) => {
            last.name = demangle(symbol);
            last.mangled = symbol.to_owned();
        }
        (None, Some(symbol)) => functions.push(Function {
            name: demangle(symbol),
            mangled: symbol.to_owned(),
            file: None,
            line: None,
        }),
        _ => {}
    }
    functions.retain(|function| !function.name.is_empty());
    functions
}

/// The outermost function is a real one, and the linker knows it. Line tables alone name it without its path. Two
/// functions with the same code may share an address: only the same function's name is taken.
fn says_more(symbol: &str, function: &Function) -> bool {
    let plain = format!("::{}", function.name.split('<').next().unwrap_or_default());
    let full = demangle(symbol);
    let rest = full.rsplit_once(&plain).map(|(_, rest)| rest);
    let same = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::<"));
    function.name.is_empty() || function.mangled == function.name && same
}

fn inlined_at(dwarf: &Dwarf<'_>, at: u64) -> Vec<Function> {
    let Ok(mut frames) = dwarf.find_frames(at).skip_all_loads() else { return Vec::new() };
    let mut functions = Vec::new();
    // A damaged table ends the list; what was read before it stands.
    while let Ok(Some(frame)) = frames.next() {
        let name = frame.function.as_ref().and_then(|f| f.raw_name().ok());
        let mangled = name.map_or_else(String::new, Cow::into_owned);
        functions.push(Function {
            name: demangle(&mangled),
            mangled,
            file: frame.location.as_ref().and_then(|l| l.file).map(str::to_owned),
            line: frame.location.as_ref().and_then(|l| l.line).filter(|&line| line > 0),
        });
    }
    functions
}

/// A linker's name as people wrote it: Rust v0 and legacy without hash, C++ without parameters; any
/// other name as it is.
#[must_use]
pub fn demangle(name: &str) -> String {
    // Versions of shared objects and suffixes of the optimiser are no part of the name.
    let bare = name.split("@@").next().unwrap_or(name);
    if let Ok(rust) = rustc_demangle::try_demangle(bare) {
        return format!("{rust:#}");
    }
    if !bare.starts_with("_Z") {
        return bare.to_owned();
    }
    let options = cpp_demangle::DemangleOptions::new().no_params().no_return_type();
    cpp_demangle::Symbol::new(bare.as_bytes())
        .ok()
        .and_then(|symbol| symbol.demangle_with_options(&options).ok())
        .unwrap_or_else(|| bare.to_owned())
}
