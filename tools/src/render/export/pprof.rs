//! profile.proto, gzipped, as `go tool pprof` and its heirs read it
//! (github.com/google/pprof/blob/main/proto/profile.proto).
//!
//! Four values per sample: alloc_objects, alloc_space, inuse_objects, inuse_space. Labels: agent, core,
//! size_class, verdict. What died has no labels but the verdict: deaths are kept by site. Addresses and
//! build-ids are in it, so that others can look symbols up again.

use std::collections::HashMap;
use std::io::{self, Write};

use tailbeam_probes::analyse::profile::{Amount, HeapProfile, StackFrame};
use tailbeam_probes::record::heap::Module;

use super::{Export, gzipped, owner_name};

/// A value of the profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Objects allocated since the start.
    AllocObjects,
    /// Bytes allocated since the start.
    AllocSpace,
    /// Objects that live.
    InuseObjects,
    /// Bytes that live.
    InuseSpace,
}

impl Metric {
    /// All, in the order of the profile.
    pub const ALL: [Self; 4] =
        [Self::AllocObjects, Self::AllocSpace, Self::InuseObjects, Self::InuseSpace];

    /// Name and unit in pprof's vocabulary.
    #[must_use]
    pub const fn name(self) -> (&'static str, &'static str) {
        match self {
            Self::AllocObjects => ("alloc_objects", "count"),
            Self::AllocSpace => ("alloc_space", "bytes"),
            Self::InuseObjects => ("inuse_objects", "count"),
            Self::InuseSpace => ("inuse_space", "bytes"),
        }
    }

    /// Bytes or objects of an amount.
    #[must_use]
    pub const fn of(self, amount: Amount) -> i64 {
        match self {
            Self::AllocObjects | Self::InuseObjects => amount.objects,
            Self::AllocSpace | Self::InuseSpace => amount.bytes,
        }
    }
}

/// Writes the profile.
///
/// # Errors
/// Those of `out`.
pub fn write(export: &Export<'_>, out: &mut dyn Write) -> io::Result<()> {
    gzipped(out, |out| out.write_all(&encode(export)))
}

/// Bytes of a protobuf message (protobuf.dev/programming-guides/encoding).
#[derive(Default)]
pub(super) struct Message(pub(super) Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push((value & 0x7f) as u8);
    }

    /// A varint field; zero is the default and not written.
    pub(super) fn number(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.varint(u64::from(field) << 3);
            self.varint(value);
        }
    }

    /// An int64 field: two's complement.
    pub(super) fn signed(&mut self, field: u32, value: i64) {
        self.number(field, value.cast_unsigned());
    }

    pub(super) fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn message(&mut self, field: u32, build: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        build(&mut inner);
        self.bytes(field, &inner.0);
    }

    /// A packed field of numbers, zeros included.
    pub(super) fn packed(&mut self, field: u32, values: impl IntoIterator<Item = u64>) {
        self.message(field, |inner| values.into_iter().for_each(|value| inner.varint(value)));
    }
}

/// Strings by number; 0 is the empty one.
pub(super) struct Strings(HashMap<String, u64>, pub(super) Vec<String>);

impl Strings {
    pub(super) fn id(&mut self, text: &str) -> u64 {
        if let Some(&id) = self.0.get(text) {
            return id;
        }
        let id = self.1.len() as u64;
        self.0.insert(text.to_owned(), id);
        self.1.push(text.to_owned());
        id
    }
}

pub(super) struct Tables {
    pub(super) strings: Strings,
    functions: HashMap<(String, String, String), u64>,
    locations: HashMap<StackFrame, u64>,
    pub(super) out: Message,
}

/// A label by numbers of strings: a text, or a number with its unit.
struct Label {
    key: u64,
    text: u64,
    number: u64,
    unit: u64,
}

fn encode(export: &Export<'_>) -> Vec<u8> {
    let mut tables = Tables::new();
    for metric in Metric::ALL {
        let (name, unit) = metric.name();
        tables.value_type(1, name, unit);
    }
    tables.samples(export);
    let resolved = resolved_modules(export.profile);
    for (index, module) in export.profile.modules.iter().enumerate() {
        tables.mapping(index, module, resolved[index]);
    }
    tables.tail(export);
    tables.out.0
}

/// Whether any function, any file and any inlined frame of each module is known.
pub(super) fn resolved_modules(profile: &HeapProfile) -> Vec<[bool; 3]> {
    let mut resolved = vec![[false; 3]; profile.modules.len()];
    for frame in profile.stacks.iter().flat_map(|stack| &stack.frames) {
        if let Some(known) = frame.module.and_then(|module| resolved.get_mut(module)) {
            known[0] |= !frame.functions.is_empty();
            known[1] |= frame.functions.iter().any(|function| function.file.is_some());
            known[2] |= frame.functions.len() > 1;
        }
    }
    resolved
}

impl Tables {
    pub(super) fn new() -> Self {
        Self {
            strings: Strings(HashMap::from([(String::new(), 0)]), vec![String::new()]),
            functions: HashMap::new(),
            locations: HashMap::new(),
            out: Message::default(),
        }
    }

    pub(super) fn value_type(&mut self, field: u32, name: &str, unit: &str) {
        let (name, unit) = (self.strings.id(name), self.strings.id(unit));
        self.out.message(field, |message| {
            message.number(1, name);
            message.number(2, unit);
        });
    }

    fn samples(&mut self, export: &Export<'_>) {
        let profile = export.profile;
        let mut dead = profile.allocated.clone();
        for holding in &profile.live {
            dead[holding.stack] = dead[holding.stack].less(holding.amount);
            let site = profile.stacks[holding.stack].site;
            let verdict = export.verdicts.word(site, holding.owner);
            let agent = owner_name(export.snapshot, holding.owner);
            let core = holding.core.to_string();
            let labels = [("agent", Some(&*agent)), ("core", Some(&*core)), ("verdict", verdict)];
            let labels = self.labels(&labels, Some(holding.class));
            self.sample(export, holding.stack, (holding.amount, holding.amount), &labels);
        }
        for (stack, amount) in dead.into_iter().enumerate() {
            if amount != Amount::default() {
                let verdict = export.verdicts.word(profile.stacks[stack].site, 0);
                let labels = self.labels(&[("verdict", verdict)], None);
                self.sample(export, stack, (amount, Amount::default()), &labels);
            }
        }
    }

    fn labels(&mut self, texts: &[(&str, Option<&str>)], class: Option<u64>) -> Vec<Label> {
        let mut labels: Vec<Label> = Vec::new();
        for (key, text) in texts {
            if let Some(text) = text {
                let (key, text) = (self.strings.id(key), self.strings.id(text));
                labels.push(Label { key, text, number: 0, unit: 0 });
            }
        }
        if let Some(number) = class {
            let (key, unit) = (self.strings.id("size_class"), self.strings.id("bytes"));
            labels.push(Label { key, text: 0, number, unit });
        }
        labels
    }

    fn sample(
        &mut self,
        export: &Export<'_>,
        stack: usize,
        (alloc, inuse): (Amount, Amount),
        labels: &[Label],
    ) {
        let stack = &export.profile.stacks[stack];
        let mut locations: Vec<u64> =
            stack.frames.iter().map(|frame| self.location(export.profile, frame)).collect();
        if locations.is_empty() {
            locations.push(self.location(export.profile, &nowhere()));
        }
        self.out.message(2, |sample| {
            sample.packed(1, locations);
            let values = [alloc.objects, alloc.bytes, inuse.objects, inuse.bytes];
            sample.packed(2, values.map(i64::cast_unsigned));
            for label in labels {
                sample.message(3, |message| {
                    message.number(1, label.key);
                    message.number(2, label.text);
                    message.number(3, label.number);
                    message.number(4, label.unit);
                });
            }
        });
    }

    pub(super) fn location(&mut self, profile: &HeapProfile, frame: &StackFrame) -> u64 {
        if let Some(&id) = self.locations.get(frame) {
            return id;
        }
        let id = self.locations.len() as u64 + 1;
        self.locations.insert(frame.clone(), id);
        let module = frame.module.and_then(|module| profile.modules.get(module));
        let address = frame.address.wrapping_add(module.map_or(0, |module| module.bias));
        let lines: Vec<(u64, u64)> = frame
            .functions
            .iter()
            .map(|f| {
                let file = f.file.as_deref().unwrap_or("");
                (self.function(&f.name, &f.mangled, file), u64::from(f.line.unwrap_or(0)))
            })
            .collect();
        self.out.message(4, |location| {
            location.number(1, id);
            location.number(2, frame.module.map_or(0, |module| module as u64 + 1));
            location.number(3, address);
            for (function, line) in lines {
                location.message(4, |message| {
                    message.number(1, function);
                    message.number(2, line);
                });
            }
        });
        id
    }

    fn function(&mut self, name: &str, mangled: &str, file: &str) -> u64 {
        let key = (name.to_owned(), mangled.to_owned(), file.to_owned());
        if let Some(&id) = self.functions.get(&key) {
            return id;
        }
        let id = self.functions.len() as u64 + 1;
        self.functions.insert(key, id);
        let texts = [name, mangled, file].map(|text| self.strings.id(text));
        self.out.message(5, |function| {
            function.number(1, id);
            for (field, text) in (2..).zip(texts) {
                function.number(field, text);
            }
        });
        id
    }

    pub(super) fn mapping(
        &mut self,
        index: usize,
        module: &Module,
        [names, files, inlined]: [bool; 3],
    ) {
        let build_id: String = module.build_id.iter().map(|byte| format!("{byte:02x}")).collect();
        let (file, build_id) = (self.strings.id(&module.path), self.strings.id(&build_id));
        self.out.message(3, |mapping| {
            mapping.number(1, index as u64 + 1);
            mapping.number(2, module.range.0);
            mapping.number(3, module.range.1);
            mapping.number(4, module.range.0.saturating_sub(module.bias));
            mapping.number(5, file);
            mapping.number(6, build_id);
            let facts = [names, files, files, inlined];
            for (field, known) in (7..).zip(facts) {
                mapping.number(field, u64::from(known));
            }
        });
    }

    fn tail(&mut self, export: &Export<'_>) {
        let tables = self;
        let snapshot = export.snapshot;
        tables.out.signed(9, unix_ns(export));
        tables.out.number(10, snapshot.at_ns);
        tables.value_type(11, "space", "bytes");
        tables.out.number(12, snapshot.sampler.mean_bytes);
        let run = format!("run {}", export.run);
        let comments = std::iter::once(&run).chain(export.comments);
        let comments: Vec<u64> = comments.map(|comment| tables.strings.id(comment)).collect();
        tables.out.packed(13, comments);
        let default = tables.strings.id(Metric::InuseSpace.name().0);
        tables.out.number(14, default);
        for text in std::mem::take(&mut tables.strings.1) {
            tables.out.bytes(6, text.as_bytes());
        }
    }
}

fn unix_ns(export: &Export<'_>) -> i64 {
    let at = export.snapshot.started_unix_ns.saturating_add(export.snapshot.at_ns);
    i64::try_from(at).unwrap_or(i64::MAX)
}

/// The place of stacks that are not known.
pub(super) fn nowhere() -> StackFrame {
    let function = tailbeam_probes::analyse::symbols::Function {
        name: "(stack unknown)".to_owned(),
        mangled: String::new(),
        file: None,
        line: None,
    };
    StackFrame { module: None, address: 0, functions: vec![function], skipped: 0 }
}
