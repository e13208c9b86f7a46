//! Processed profile of the Firefox Profiler, version 55: an old well-known version that its upgraders
//! bring up to date. One track per core with the native allocations that live (retained), at the instants
//! of their births; the exact live bytes as a counter.
//!
//! Written by hand: `fxprof-processed-profile` 0.8.1 has no lines, no inlined frames and puts every
//! allocation of a process on one thread, where we want one per core. What died is known by site only and
//! is not in the file: `retained` and `allocations` show the same.

use std::collections::HashMap;
use std::io::{self, Write};

use serde_json::{Value, json};
use tailbeam_probes::analyse::profile::{HeapProfile, StackFrame};
use tailbeam_probes::analyse::symbols::Function;
use tailbeam_probes::record::heap::{Census, Module, Sample};

use super::Export;

/// Categories: the verdict on a site colours the frame that asked.
const CATEGORIES: [(&str, &str); 4] =
    [("Other", "grey"), ("LEAK", "red"), ("SUSPECT", "orange"), ("CLEAN", "green")];

/// Writes the profile as JSON; a base is not part of this format.
///
/// # Errors
/// Those of `out`.
pub fn write(export: &Export<'_>, out: &mut dyn Write) -> io::Result<()> {
    let mut cores: Vec<u16> = export.snapshot.samples.iter().map(|sample| sample.core).collect();
    cores.sort_unstable();
    cores.dedup();
    let threads: Vec<Value> = cores.iter().map(|&core| thread(export, core, cores[0])).collect();
    let categories = CATEGORIES
        .map(|(name, color)| json!({"name": name, "color": color, "subcategories": ["Other"]}));
    let start_ms = export.snapshot.started_unix_ns as f64 / 1e6;
    let facts: Vec<Value> = export
        .comments
        .iter()
        .map(|text| json!({"label": "note", "format": "string", "value": text}))
        .collect();
    let profile = json!({
        "meta": {
            "categories": categories,
            "debug": false,
            "extensions": {"length": 0, "baseURL": [], "id": [], "name": []},
            "interval": 1.0,
            "preprocessedProfileVersion": 55,
            "processType": 0,
            "product": format!("{} (run {})", title(&export.snapshot.command), export.run),
            "importedFrom": format!("tailbeam {}", env!("CARGO_PKG_VERSION")),
            "sampleUnits": {"time": "ms", "eventDelay": "ms", "threadCPUDelta": "µs"},
            "startTime": start_ms,
            "symbolicated": true,
            "pausedRanges": [],
            "version": 24,
            "usesOnlyOneStackType": true,
            "sourceCodeIsNotOnSearchfox": true,
            "markerSchema": [],
            "extra": [{"label": "Heap sampling", "entries": facts}],
        },
        "libs": export.profile.modules.iter().map(lib).collect::<Vec<_>>(),
        "threads": threads,
        "pages": [],
        "profilerOverhead": [],
        "counters": counter(&export.snapshot.census, export.snapshot.pid),
    });
    serde_json::to_writer(&mut *out, &profile)?;
    writeln!(out)
}

pub(super) fn title(command: &str) -> &str {
    let program = command.split(' ').next().unwrap_or(command);
    let name = program.rsplit('/').next().unwrap_or(program);
    if name.is_empty() { "heap" } else { name }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn lib(module: &Module) -> Value {
    let name = module.path.rsplit('/').next().unwrap_or(&module.path);
    // Breakpad's id: the first 16 bytes of the build-id as a little-endian GUID, then the age.
    let mut id = module.build_id.clone();
    id.resize(16, 0);
    id[0..4].reverse();
    id[4..6].reverse();
    id[6..8].reverse();
    json!({
        "name": name, "path": module.path, "debugName": name, "debugPath": module.path,
        "breakpadId": format!("{}0", hex(&id).to_uppercase()),
        "codeId": (!module.build_id.is_empty()).then(|| hex(&module.build_id)),
        "arch": null,
    })
}

fn counter(census: &[Census], pid: u32) -> Vec<Value> {
    if census.is_empty() {
        return Vec::new();
    }
    let mut last = (0u64, 0.0f64);
    let (mut counts, mut deltas) = (Vec::new(), Vec::new());
    for reading in census {
        let at_ms = reading.at_ns as f64 / 1e6;
        counts.push(i128::from(reading.live_bytes) - i128::from(last.0));
        deltas.push(at_ms - last.1);
        last = (reading.live_bytes, at_ms);
    }
    let counts: Vec<i64> = counts.into_iter().map(|n| i64::try_from(n).unwrap_or(0)).collect();
    vec![json!({
        "category": "Memory", "name": "malloc", "description": "Live bytes, exact",
        "mainThreadIndex": 0, "pid": pid.to_string(),
        "samples": {
            "length": counts.len(), "count": counts, "number": vec![0; deltas.len()],
            "timeDeltas": deltas,
        },
    })]
}

/// The tables of one thread.
#[derive(Default)]
pub(super) struct Tables {
    strings: Vec<String>,
    string_ids: HashMap<String, usize>,
    funcs: Vec<(usize, Option<usize>, Option<usize>)>,
    func_ids: HashMap<(usize, Option<usize>, Option<usize>), usize>,
    resources: Vec<(usize, usize)>,
    resource_ids: HashMap<usize, usize>,
    frames: Vec<FrameRow>,
    frame_ids: HashMap<FrameRow, usize>,
    stacks: Vec<(Option<usize>, usize)>,
    stack_ids: HashMap<(Option<usize>, usize), usize>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct FrameRow {
    address: Option<u64>,
    depth: usize,
    category: usize,
    func: usize,
    line: Option<u32>,
}

impl Tables {
    pub(super) fn string(&mut self, text: &str) -> usize {
        if let Some(&id) = self.string_ids.get(text) {
            return id;
        }
        self.strings.push(text.to_owned());
        self.string_ids.insert(text.to_owned(), self.strings.len() - 1);
        self.strings.len() - 1
    }

    fn resource(&mut self, profile: &HeapProfile, module: usize) -> usize {
        if let Some(&id) = self.resource_ids.get(&module) {
            return id;
        }
        let path = &profile.modules[module].path;
        let name = self.string(path.rsplit('/').next().unwrap_or(path));
        self.resources.push((module, name));
        self.resource_ids.insert(module, self.resources.len() - 1);
        self.resources.len() - 1
    }

    fn row<K: Clone + Eq + std::hash::Hash>(
        rows: &mut Vec<K>,
        ids: &mut HashMap<K, usize>,
        row: K,
    ) -> usize {
        *ids.entry(row).or_insert_with_key(|row| {
            rows.push(row.clone());
            rows.len() - 1
        })
    }

    fn frame(
        &mut self,
        profile: &HeapProfile,
        frame: &StackFrame,
        function: Option<&Function>,
        (depth, category): (usize, usize),
    ) -> usize {
        let name = function.map_or_else(|| profile.address_name(frame), |f| f.name.clone());
        let name = self.string(&name);
        let file = function.and_then(|f| f.file.as_deref()).map(|file| self.string(file));
        let resource = frame.module.map(|module| self.resource(profile, module));
        let func = Self::row(&mut self.funcs, &mut self.func_ids, (name, resource, file));
        // A return address belongs to the call before it.
        let address = frame.module.map(|_| frame.address.saturating_sub(1));
        let line = function.and_then(|f| f.line);
        let row = FrameRow { address, depth, category, func, line };
        Self::row(&mut self.frames, &mut self.frame_ids, row)
    }

    /// The stack of a site, root first in the table.
    pub(super) fn stack(
        &mut self,
        profile: &HeapProfile,
        frames: &[StackFrame],
        category: usize,
    ) -> Option<usize> {
        let mut below = None;
        for (index, frame) in frames.iter().enumerate().rev() {
            let functions: Vec<Option<&Function>> = match frame.functions.is_empty() {
                true => vec![None],
                false => frame.functions.iter().map(Some).collect(),
            };
            // Depth 0 is the function that was not inlined: the last one here.
            for (depth, function) in functions.into_iter().rev().enumerate() {
                let innermost = index == 0 && depth + 1 == frame.functions.len().max(1);
                let category = if innermost { category } else { 0 };
                let id = self.frame(profile, frame, function, (depth, category));
                below = Some(Self::row(&mut self.stacks, &mut self.stack_ids, (below, id)));
            }
        }
        below
    }
}

fn category(export: &Export<'_>, sample: &Sample) -> usize {
    let word = export.verdicts.word(sample.site, sample.owner).unwrap_or("Other");
    CATEGORIES.iter().position(|(name, _)| *name == word).unwrap_or(0)
}

fn thread(export: &Export<'_>, core: u16, first: u16) -> Value {
    let (snapshot, profile) = (export.snapshot, export.profile);
    let stacks: HashMap<u32, usize> =
        profile.stacks.iter().enumerate().rev().map(|(k, stack)| (stack.site, k)).collect();
    let mut tables = Tables::default();
    let samples = snapshot.samples.iter().zip(&profile.by_sample).enumerate();
    let mut own: Vec<_> = samples.filter(|(_, (sample, _))| sample.core == core).collect();
    own.sort_by_key(|(_, (sample, _))| sample.born_ns);
    let (mut time, mut weight, mut stack, mut address) = (vec![], vec![], vec![], vec![]);
    for (index, (sample, amount)) in own {
        let frames = stacks.get(&sample.site).map_or(&[][..], |&k| &profile.stacks[k].frames);
        time.push(sample.born_ns as f64 / 1e6);
        weight.push(amount.bytes);
        stack.push(tables.stack(profile, frames, category(export, sample)));
        // Retained means an address without its free: a sampled object has one of its own.
        address.push(if sample.address == 0 { index as u64 + 1 } else { sample.address });
    }
    let n = time.len();
    let mut value = tables.json();
    let native = json!({
        "time": time, "weight": weight, "weightType": "bytes", "stack": stack,
        "memoryAddress": address, "threadId": vec![0; n], "length": n,
    });
    let facts = json!({
        "name": format!("Core {core}"), "isMainThread": core == first, "pausedRanges": [],
        "pid": snapshot.pid.to_string(), "processName": title(&snapshot.command),
        "processShutdownTime": null, "processStartupTime": 0.0, "processType": "default",
        "registerTime": 0.0, "unregisterTime": null, "showMarkersInTimeline": false,
        "tid": format!("core-{core}"), "nativeAllocations": native,
        // Two empty samples span the run: the profiler shows the range that it finds.
        "samples": {"length": 2, "weightType": "samples", "stack": [null, null],
            "timeDeltas": [0.0, snapshot.at_ns as f64 / 1e6], "weight": null,
            "threadCPUDelta": [null, null]},
        "markers": {"length": 0, "category": [], "data": [], "endTime": [], "name": [],
            "phase": [], "startTime": []},
        "nativeSymbols": {"length": 0, "address": [], "functionSize": [], "libIndex": [],
            "name": []},
    });
    if let (Value::Object(all), Value::Object(more)) = (&mut value, facts) {
        all.extend(more);
    }
    value
}

impl Tables {
    pub(super) fn json(&self) -> Value {
        let none = |n: usize| vec![Value::Null; n];
        let column = |f: &dyn Fn(&FrameRow) -> Value| self.frames.iter().map(f).collect::<Vec<_>>();
        let (frames, funcs) = (self.frames.len(), self.funcs.len());
        let resources = self.resources.len();
        json!({
            "stringArray": self.strings,
            "frameTable": {
                "length": frames,
                "address": column(&|row| row.address.map_or(json!(-1), |address| json!(address))),
                "inlineDepth": column(&|row| json!(row.depth)),
                "category": column(&|row| json!(row.category)),
                "subcategory": vec![0; frames],
                "func": column(&|row| json!(row.func)),
                "nativeSymbol": none(frames),
                "innerWindowID": vec![0; frames],
                "line": column(&|row| json!(row.line)),
                "column": none(frames),
            },
            "funcTable": {
                "length": funcs,
                "name": self.funcs.iter().map(|f| f.0).collect::<Vec<_>>(),
                "isJS": vec![false; funcs],
                "relevantForJS": vec![false; funcs],
                "resource": self.funcs.iter().map(|f| f.1.map_or(json!(-1), |r| json!(r)))
                    .collect::<Vec<_>>(),
                "fileName": self.funcs.iter().map(|f| f.2).collect::<Vec<_>>(),
                "lineNumber": none(funcs),
                "columnNumber": none(funcs),
            },
            "resourceTable": {
                "length": resources,
                "lib": self.resources.iter().map(|r| r.0).collect::<Vec<_>>(),
                "name": self.resources.iter().map(|r| r.1).collect::<Vec<_>>(),
                "host": none(resources),
                "type": vec![1; resources],
            },
            "stackTable": {
                "length": self.stacks.len(),
                "prefix": self.stacks.iter().map(|stack| stack.0).collect::<Vec<_>>(),
                "frame": self.stacks.iter().map(|stack| stack.1).collect::<Vec<_>>(),
            },
        })
    }
}
