//! A heap snapshot as a profile: stacks with names, and whole bytes and objects by stack, owner, core
//! and size class. Tables, exports and diffs are all drawn from this one value, so that they agree to the
//! byte: the weights of a site are rounded once, cumulatively, and their sum is the rounded sum.
#![expect(
    clippy::cast_possible_truncation,
    reason = "weights are bytes of one heap: they fit 63 bits; casts of floats saturate"
)]

use std::collections::{BTreeMap, HashMap};

use super::role::{Role, role, role_in};
use super::symbols::{Function, Symbols};
use crate::record::heap::{Frame, HeapSnapshot, Module, Sample};

/// A heap by stack, owner, core and size class.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeapProfile {
    /// Modules that the frames name.
    pub modules: Vec<Module>,
    /// Stacks, one per site that holds or ever got anything.
    pub stacks: Vec<Stack>,
    /// What lives.
    pub live: Vec<Holding>,
    /// What was allocated since the start, dead or alive, one per stack.
    pub allocated: Vec<Amount>,
    /// Bytes and objects of each sample of the snapshot, in its order.
    pub by_sample: Vec<Amount>,
    /// Frames that were left out at the inner ends of stacks.
    pub hidden_frames: u64,
}

/// A stack, innermost frame first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stack {
    /// Site of the snapshot.
    pub site: u32,
    /// Frames, innermost first; empty for a stack that is not known.
    pub frames: Vec<StackFrame>,
    /// The walk ended early.
    pub truncated: bool,
}

/// A return address and the functions that lie there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StackFrame {
    /// Index into [`HeapProfile::modules`].
    pub module: Option<usize>,
    /// Address less the module's bias.
    pub address: u64,
    /// Functions, innermost first, without the hidden ones; empty when unknown.
    pub functions: Vec<Function>,
    /// Inlined functions that were left out before the first.
    pub skipped: usize,
}

/// Bytes and objects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Bytes.
    pub bytes: i64,
    /// Objects.
    pub objects: i64,
}

impl Amount {
    /// The sum with another.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            objects: self.objects.saturating_add(other.objects),
        }
    }

    /// What remains without another.
    #[must_use]
    pub const fn less(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(other.bytes),
            objects: self.objects.saturating_sub(other.objects),
        }
    }
}

/// What lives of one stack, owner, core and size class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holding {
    /// Index into [`HeapProfile::stacks`].
    pub stack: usize,
    /// Owner at birth, 0 when none was tagged.
    pub owner: u32,
    /// Core of birth.
    pub core: u16,
    /// Largest request of the size class, bytes.
    pub class: u64,
    /// How much.
    pub amount: Amount,
}

/// Which frames a stack shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Frames {
    /// From the first function of the program outwards.
    #[default]
    Program,
    /// All of them.
    All,
}

impl HeapProfile {
    /// The profile of a snapshot.
    #[must_use]
    pub fn of(snapshot: &HeapSnapshot, symbols: &Symbols, frames: Frames) -> Self {
        let mut profile = Self { modules: snapshot.modules.clone(), ..Self::default() };
        let index: HashMap<u32, usize> =
            snapshot.sites.iter().enumerate().map(|(k, site)| (site.id, k)).collect();
        for site in &snapshot.sites {
            let (stack, hidden) = named(&site.frames, snapshot, symbols, frames);
            let stack = Stack { site: site.id, frames: stack, truncated: site.truncated };
            profile.stacks.push(stack);
            profile.hidden_frames += hidden;
        }
        profile.by_sample = apportion(&snapshot.samples);
        let classes: Vec<u64> = snapshot.classes.iter().map(|class| class.up_to).collect();
        let mut held: BTreeMap<(usize, u32, u16, u64), Amount> = BTreeMap::new();
        let mut live = vec![Amount::default(); profile.stacks.len()];
        for (sample, amount) in snapshot.samples.iter().zip(&profile.by_sample) {
            // A sample of a site that is not listed belongs to the stacks without room.
            let stack = index.get(&sample.site).or_else(|| index.get(&0)).copied().unwrap_or(0);
            let key = (stack, sample.owner, sample.core, class_of(&classes, sample.size));
            let sum = held.entry(key).or_default();
            *sum = sum.plus(*amount);
            if let Some(sum) = live.get_mut(stack) {
                *sum = sum.plus(*amount);
            }
        }
        let holding =
            |((stack, owner, core, class), amount)| Holding { stack, owner, core, class, amount };
        profile.live = held.into_iter().map(holding).collect();
        profile.allocated = allocated(snapshot, &index, &live);
        profile
    }

    /// The difference to an earlier profile: what this one holds, and what that one held with its sign
    /// turned. Stacks of equal addresses are one stack; across builds, those of equal names.
    #[must_use]
    pub fn less(mut self, base: &Self) -> Self {
        let modules: Vec<usize> = base.modules.iter().map(|module| self.module(module)).collect();
        let mut names: HashMap<Vec<String>, usize> = HashMap::new();
        let mut frames: HashMap<Vec<StackFrame>, usize> = HashMap::new();
        for (index, stack) in self.stacks.iter().enumerate() {
            names.entry(self.names(stack)).or_insert(index);
            frames.entry(stack.frames.clone()).or_insert(index);
        }
        let mut moved = Vec::with_capacity(base.stacks.len());
        for stack in &base.stacks {
            let mut stack = stack.clone();
            let key = base.names(&stack);
            for frame in &mut stack.frames {
                frame.module = frame.module.map(|module| modules[module]);
            }
            let same = frames.get(&stack.frames).or_else(|| names.get(&key)).copied();
            moved.push(same.unwrap_or_else(|| {
                self.stacks.push(stack);
                self.allocated.push(Amount::default());
                self.stacks.len() - 1
            }));
        }
        for holding in &base.live {
            let amount = Amount::default().less(holding.amount);
            self.live.push(Holding { stack: moved[holding.stack], amount, ..*holding });
        }
        for (index, amount) in base.allocated.iter().enumerate() {
            let sum = &mut self.allocated[moved[index]];
            *sum = sum.less(*amount);
        }
        self
    }

    fn module(&mut self, wanted: &Module) -> usize {
        let same = |own: &Module| own.path == wanted.path && own.build_id == wanted.build_id;
        self.modules.iter().position(same).unwrap_or_else(|| {
            self.modules.push(wanted.clone());
            self.modules.len() - 1
        })
    }

    /// What lives of a stack.
    #[must_use]
    pub fn live_of(&self, stack: usize) -> Amount {
        let of = self.live.iter().filter(|holding| holding.stack == stack);
        of.fold(Amount::default(), |sum, holding| sum.plus(holding.amount))
    }

    /// What lives.
    #[must_use]
    pub fn live_total(&self) -> Amount {
        self.live.iter().fold(Amount::default(), |sum, holding| sum.plus(holding.amount))
    }

    /// Name of a frame that has no function: file and offset, or the address.
    #[must_use]
    pub fn address_name(&self, frame: &StackFrame) -> String {
        match frame.module.and_then(|module| self.modules.get(module)) {
            Some(module) => {
                let file = module.path.rsplit('/').next().unwrap_or(&module.path);
                format!("{file}+{:#x}", frame.address)
            }
            None => format!("{:#x}", frame.address),
        }
    }

    /// The calls of a stack as names, innermost first.
    #[must_use]
    pub fn names(&self, stack: &Stack) -> Vec<String> {
        let mut names = Vec::new();
        for frame in &stack.frames {
            match frame.functions.is_empty() {
                true => names.push(self.address_name(frame)),
                false => names.extend(frame.functions.iter().map(|f| f.name.clone())),
            }
        }
        if names.is_empty() {
            names.push("(stack unknown)".to_owned());
        }
        names
    }
}

/// Whole bytes and objects of samples: within a site each sample gets what the running sum rounds to, so
/// that the parts add up to the rounded whole.
fn apportion(samples: &[Sample]) -> Vec<Amount> {
    let mut sums: HashMap<u32, (f64, f64)> = HashMap::new();
    samples
        .iter()
        .map(|sample| {
            let sum = sums.entry(sample.site).or_default();
            let before = *sum;
            sum.0 += sample.weight;
            // An object of no bytes has no weight in bytes; it stands for itself at least.
            sum.1 += if sample.size == 0 { 1.0 } else { sample.weight / sample.size as f64 };
            Amount {
                bytes: sum.0.round() as i64 - before.0.round() as i64,
                objects: sum.1.round() as i64 - before.1.round() as i64,
            }
        })
        .collect()
}

/// The class of a size among the allocator's, or the next power of two where it names none.
fn class_of(classes: &[u64], size: u64) -> u64 {
    let class = classes.iter().copied().filter(|&up_to| up_to >= size).min();
    class.unwrap_or_else(|| size.max(1).checked_next_power_of_two().unwrap_or(u64::MAX))
}

/// Births by stack. A block that grew weighs more now than at its birth: what lives was allocated.
fn allocated(snapshot: &HeapSnapshot, index: &HashMap<u32, usize>, live: &[Amount]) -> Vec<Amount> {
    let mut bytes = vec![0.0; live.len()];
    let mut counts = vec![0.0; live.len()];
    let mut mean_weight: HashMap<u32, (f64, f64)> = HashMap::new();
    for sample in snapshot.samples.iter().filter(|sample| sample.size > 0) {
        let sums = mean_weight.entry(sample.site).or_default();
        *sums = (sums.0 + sample.weight / sample.size as f64, sums.1 + 1.0);
    }
    for births in &snapshot.births {
        let Some(&stack) = index.get(&births.site).or_else(|| index.get(&0)) else { continue };
        bytes[stack] += births.bytes;
        // Objects that a sample stands for, from those that live; exact when all are sampled.
        let (sum, count) = mean_weight.get(&births.site).copied().unwrap_or((1.0, 1.0));
        counts[stack] += births.count as f64 * sum / count;
    }
    let whole = |(k, live): (usize, &Amount)| Amount {
        bytes: (bytes[k].round() as i64).max(live.bytes),
        objects: (counts[k].round() as i64).max(live.objects),
    };
    live.iter().enumerate().map(whole).collect()
}

/// The frames of a site with their functions, and how many calls were left out.
fn named(
    frames: &[Frame],
    snapshot: &HeapSnapshot,
    symbols: &Symbols,
    show: Frames,
) -> (Vec<StackFrame>, u64) {
    let mut stack: Vec<StackFrame> = frames
        .iter()
        .map(|frame| StackFrame {
            module: Some(frame.module as usize).filter(|&module| module < snapshot.modules.len()),
            address: frame.address,
            functions: symbols.of(frame).to_vec(),
            skipped: 0,
        })
        .collect();
    let roles: Vec<Role> = stack
        .iter()
        .flat_map(|frame| {
            let path = frame.module.map_or("", |module| &*snapshot.modules[module].path);
            let functions =
                frame.functions.iter().map(move |f| role_in(&f.name, f.file.as_deref(), path));
            let unknown = frame.functions.is_empty().then(|| role("", path));
            functions.chain(unknown)
        })
        .collect();
    let first = |least: Role| roles.iter().position(|&role| role >= least);
    let skip = match show {
        Frames::All => 0,
        // A stack that lies in libraries only begins at the allocator's caller.
        Frames::Program => first(Role::Program).or_else(|| first(Role::Library)).unwrap_or(0),
    };
    let mut left = skip;
    stack.retain_mut(|frame| {
        let calls = frame.functions.len().max(1);
        if left >= calls {
            left -= calls;
            return false;
        }
        frame.functions.drain(..left.min(frame.functions.len()));
        frame.skipped = left;
        left = 0;
        true
    });
    (stack, skip as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::heap::{Births, Site};

    fn function(name: &str) -> Function {
        Function { name: name.to_owned(), mangled: name.to_owned(), file: None, line: None }
    }

    /// One module; frame `k` of a site is called as listed, several where inlined.
    fn heap(sites: &[&[&[&str]]]) -> (HeapSnapshot, Symbols) {
        let mut snapshot = HeapSnapshot::default();
        snapshot.modules.push(Module { path: "/opt/app".to_owned(), ..Module::default() });
        let mut symbols = Symbols::default();
        let mut address = 0;
        for (id, frames) in sites.iter().enumerate() {
            let mut site = Site { id: u32::try_from(id).unwrap(), ..Site::default() };
            for names in *frames {
                address += 16;
                let frame = Frame { module: 0, address };
                site.frames.push(frame);
                let functions: Vec<Function> = names.iter().map(|name| function(name)).collect();
                if !functions.is_empty() {
                    symbols.frames.insert(frame, functions);
                }
            }
            snapshot.sites.push(site);
        }
        (snapshot, symbols)
    }

    fn sample(site: u32, size: u64, weight: f64) -> Sample {
        Sample { site, size, weight, ..Sample::default() }
    }

    #[test]
    fn a_stack_begins_where_the_program_asked() {
        let (snapshot, symbols) = heap(&[
            &[],
            &[
                &["malloc"],
                &["alloc::raw_vec::grow", "alloc::vec::push", "app::put"],
                &["app::main"],
            ],
            &[&["malloc"], &["std::thread::spawn"], &["std::rt::start"]],
            &[&["malloc"]],
            &[&["malloc"], &[], &["app::main"]],
        ]);
        let profile = HeapProfile::of(&snapshot, &symbols, Frames::Program);
        let names = |site: usize| profile.names(&profile.stacks[site]);
        assert_eq!(names(0), ["(stack unknown)"]);
        assert_eq!(names(1), ["app::put", "app::main"]);
        assert_eq!(profile.stacks[1].frames[0].skipped, 2);
        assert_eq!(names(2), ["std::thread::spawn", "std::rt::start"]);
        assert_eq!(names(3), ["malloc"], "nothing else is known of it");
        assert_eq!(names(4), ["app+0x90", "app::main"], "an unknown frame may be the program's");
        assert_eq!(profile.hidden_frames, 3 + 1 + 1);
        let all = HeapProfile::of(&snapshot, &symbols, Frames::All);
        assert_eq!((all.names(&all.stacks[1]).len(), all.hidden_frames), (5, 0));
    }

    #[test]
    fn parts_add_up_to_the_rounded_whole() {
        let (mut snapshot, symbols) = heap(&[&[], &[&["a"]], &[&["b"]]]);
        for k in 0..1_000u64 {
            let mut part =
                sample(u32::try_from(k % 2).unwrap() + 1, 10 + k, 100.4 + k as f64 / 7.0);
            part.owner = u32::try_from(k % 7).unwrap();
            part.core = u16::try_from(k % 3).unwrap();
            snapshot.samples.push(part);
        }
        let profile = HeapProfile::of(&snapshot, &symbols, Frames::All);
        for site in [1, 2] {
            let of = |s: &&Sample| s.site == site;
            let sum: f64 = snapshot.samples.iter().filter(of).map(|s| s.weight).sum();
            let count: f64 =
                snapshot.samples.iter().filter(of).map(|s| s.weight / s.size as f64).sum();
            let amount = profile.live_of(site as usize);
            assert_eq!(amount, Amount { bytes: sum.round() as i64, objects: count.round() as i64 });
        }
        let by_sample = profile.by_sample.iter().fold(Amount::default(), |a, b| a.plus(*b));
        assert_eq!(profile.live_total(), by_sample);
    }

    #[test]
    fn classes_are_the_allocators_or_powers_of_two() {
        assert_eq!([0, 1, 8, 9, 100].map(|size| class_of(&[8, 16, 48], size)), [8, 8, 8, 16, 128]);
        assert_eq!(class_of(&[], u64::MAX), u64::MAX);
    }

    #[test]
    fn what_lives_was_allocated_and_the_rest_is_dead() {
        let (mut snapshot, symbols) = heap(&[&[], &[&["a"]], &[&["b"]]]);
        snapshot.samples = vec![sample(1, 100, 1_000.0), sample(2, 64, 4_000.0)];
        let births = |site, count, bytes| Births { site, epoch: 0, count, bytes };
        // Site 2 grew after its birth.
        snapshot.births = vec![births(1, 3, 3_000.0), births(2, 1, 500.0)];
        let profile = HeapProfile::of(&snapshot, &symbols, Frames::All);
        assert_eq!(profile.allocated[1], Amount { bytes: 3_000, objects: 30 });
        assert_eq!(profile.allocated[2], profile.live_of(2));
    }

    #[test]
    fn a_difference_joins_equal_stacks_and_keeps_the_others() {
        let (mut before, symbols) = heap(&[&[], &[&["a"]], &[&["gone"]]]);
        before.samples = vec![sample(1, 10, 100.0), sample(2, 10, 70.0)];
        let base = HeapProfile::of(&before, &symbols, Frames::All);
        // Another build: other addresses, another build-id, the same names.
        let (mut after, symbols) = heap(&[&[], &[&["new"]], &[&["a"]]]);
        after.modules[0].build_id = vec![1];
        after.samples = vec![sample(1, 10, 5.0), sample(2, 10, 300.0)];
        let profile = HeapProfile::of(&after, &symbols, Frames::All).less(&base);
        let mut sums: BTreeMap<String, i64> = BTreeMap::new();
        for holding in &profile.live {
            let name = profile.names(&profile.stacks[holding.stack]).join(";");
            *sums.entry(name).or_default() += holding.amount.bytes;
        }
        let sums: Vec<(&str, i64)> = sums.iter().map(|(name, bytes)| (&**name, *bytes)).collect();
        assert_eq!(sums, [("a", 200), ("gone", -70), ("new", 5)]);
        assert_eq!(profile.live_total().bytes, 305 - 170);
        assert_eq!(profile.modules.len(), 2);
        let same = HeapProfile::of(&before, &symbols, Frames::All);
        assert_eq!(same.clone().less(&same).live_total(), Amount::default());
    }
}
