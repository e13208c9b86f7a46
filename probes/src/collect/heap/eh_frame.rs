#![expect(
    unsafe_code,
    reason = "asks the loader for a module and reads its unwind tables and the stack"
)]
//! Walks frames without frame pointers: by the tables in `.eh_frame`, which every object of a C or C++
//! program and every library has.
//!
//! The loader finds the tables of an address without a lock (`_dl_find_object`, glibc 2.35; where it is
//! missing nothing is walked this way). A rule is worked out once per code address, 0.2 to 1 us, and kept
//! in a fixed cache; then a frame costs a few ns. Words of the stack are read only between the stack
//! pointer and the end of the stack, so a stale rule (code that was unmapped and mapped anew) can give a
//! wrong frame and cannot fault.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::cfi::{self, Cfa, Rule, Saved};
use super::site::Stack;
use super::unwind::{self, Registers};
use crate::record::heap_layout::FRAMES_MAX;

/// What a step found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The caller: its return address is `ip`.
    Caller(Registers),
    /// This was the outermost frame.
    End,
    /// The tables do not say.
    Unknown,
}

/// As `dlfcn.h` declares it where it has neither base nor count (x86-64, aarch64).
#[repr(C)]
#[derive(Default)]
struct Found {
    flags: u64,
    start: usize,
    end: usize,
    link_map: usize,
    eh_frame: usize,
    reserved: [u64; 7],
}

type Find = unsafe extern "C" fn(*mut c_void, *mut Found) -> c_int;

/// Address of `_dl_find_object`; 1 when the C library has none; 0 before anybody asked.
static FIND: AtomicUsize = AtomicUsize::new(0);
const NONE: usize = 1;

/// Direct-mapped, 64 KiB: code address xor rule, and rule. A torn entry does not match its address.
const CACHE: usize = 4_096;
static RULES: [[AtomicU64; 2]; CACHE] = [const { [AtomicU64::new(0), AtomicU64::new(0)] }; CACHE];

/// Code addresses were met that the cache did not hold.
static NEW: AtomicBool = AtomicBool::new(false);

/// Whether new code was met since the last question: then a file may have been loaded.
pub(super) fn met_new() -> bool {
    NEW.load(Ordering::Relaxed) && NEW.swap(false, Ordering::Relaxed)
}

/// Looks the loader's function up. Call it once before sampling: dlsym may allocate.
pub(super) fn prepare() {
    // SAFETY: a string that ends in 0; the default scope has the C library.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"_dl_find_object".as_ptr()) };
    FIND.store(if found.is_null() { NONE } else { found.addr() }, Ordering::Relaxed);
}

fn find(pc: u64) -> Option<Found> {
    let address = FIND.load(Ordering::Relaxed);
    if address <= NONE {
        return None;
    }
    let function = std::ptr::with_exposed_provenance::<c_void>(address);
    // SAFETY: the address is that of the C function of this type (dlfcn.h).
    let find = unsafe { std::mem::transmute::<*const c_void, Find>(function) };
    let mut found = Found::default();
    let pc = usize::try_from(pc).ok()?;
    // SAFETY: any address may be asked for; the result has the layout that the header declares. The
    // function takes no lock and may be called from a signal handler (glibc manual, 37.2).
    let code = unsafe { find(std::ptr::without_provenance_mut(pc), &raw mut found) };
    (code == 0).then_some(found)
}

/// Walks by tables from the first frame on; where they say nothing, by one frame pointer.
pub(super) fn walk(registers: &Registers, top: u64, code: impl Fn(u64) -> bool) -> Stack {
    let mut stack = Stack { frames: [0; FRAMES_MAX], len: 1, truncated: false };
    stack.frames[0] = registers.ip;
    walk_on(stack, *registers, top, code)
}

/// Goes on with a walk that has come to the frame at `at`, which is in the stack already.
pub(super) fn walk_on(
    mut stack: Stack,
    mut at: Registers,
    top: u64,
    code: impl Fn(u64) -> bool,
) -> Stack {
    while stack.len < FRAMES_MAX {
        let next = match step(&at, top) {
            Step::Unknown => unwind::frame(&at, top, &code),
            next => next,
        };
        match next {
            Step::Caller(caller) => at = caller,
            Step::End => return stack,
            Step::Unknown => break,
        }
        stack.frames[stack.len] = at.ip;
        stack.len += 1;
    }
    stack.truncated = true;
    stack
}

/// Steps from a frame to its caller; `registers.ip` is a return address. Reads stack words from
/// `registers.sp` up to `top` only.
pub(super) fn step(registers: &Registers, top: u64) -> Step {
    // The call stands before the return address.
    let (cfa, ra, fp) = match known(registers.ip.wrapping_sub(1)) {
        Rule::Caller { cfa, ra, fp } => (cfa, ra, fp),
        Rule::End => return Step::End,
        Rule::Unknown => return Step::Unknown,
    };
    let stack = |address: u64| word(address, registers.sp, top);
    let caller = || {
        let sp = match cfa {
            Cfa::Sp(offset) => registers.sp.checked_add_signed(offset.into())?,
            Cfa::Fp(offset) => registers.fp.checked_add_signed(offset.into())?,
            Cfa::AtFp(offset) => stack(registers.fp.checked_add_signed(offset.into())?)?,
        };
        // The caller's frame lies above: so the walk ends.
        if sp <= registers.sp || sp > top {
            return None;
        }
        let fp = match fp {
            Saved::Same => registers.fp,
            Saved::AtCfa(offset) => stack(sp.checked_add_signed(offset.into())?)?,
            Saved::AtFp(offset) => stack(registers.fp.checked_add_signed(offset.into())?)?,
        };
        Some(Registers { ip: stack(sp.checked_add_signed(ra.into())?)?, sp, fp })
    };
    match caller() {
        Some(caller) if caller.ip == 0 => Step::End,
        Some(caller) => Step::Caller(caller),
        None => Step::Unknown,
    }
}

fn word(address: u64, low: u64, top: u64) -> Option<u64> {
    if !address.is_multiple_of(8) || address < low || address > top.saturating_sub(8) {
        return None;
    }
    let at = std::ptr::with_exposed_provenance::<u64>(usize::try_from(address).ok()?);
    // SAFETY: aligned, and between the caller's stack pointer and the end of its stack, which is mapped.
    Some(unsafe { at.read_volatile() })
}

/// The rule for a code address, from the cache or the tables.
fn known(pc: u64) -> Rule {
    // Fibonacci hashing spreads neighbouring call sites.
    let index = (pc.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 52) as usize;
    let [key, packed] = &RULES[index];
    let rule = packed.load(Ordering::Relaxed);
    if rule != 0 && key.load(Ordering::Relaxed) ^ rule == pc {
        return unpack(rule);
    }
    let found = look_up(pc);
    NEW.store(true, Ordering::Relaxed);
    let rule = pack(found);
    packed.store(rule, Ordering::Relaxed);
    key.store(pc ^ rule, Ordering::Relaxed);
    found
}

#[cold]
fn look_up(pc: u64) -> Rule {
    let Some(module) = find(pc).filter(|module| module.eh_frame != 0) else { return Rule::Unknown };
    let (start, end) = (module.start as u64, module.end as u64);
    let memory = |address: u64| {
        if !(start..end).contains(&address) {
            return None;
        }
        let at = std::ptr::with_exposed_provenance::<u8>(usize::try_from(address).ok()?);
        // SAFETY: within the mapping of a module whose code is on our stack, so it stays mapped; its
        // tables lie in a readable segment, and whatever else they point to is refused above.
        Some(unsafe { at.read_volatile() })
    };
    cfi::rule(&memory, module.eh_frame as u64, pc)
}

/// kind:2 (0 unused, 1 caller, 2 end, 3 unknown) cfa:2 fp:2 | cfa offset:32 | ra / 8:12 | fp / 8:12
fn pack(rule: Rule) -> u64 {
    let Rule::Caller { cfa, ra, fp } = rule else {
        return if rule == Rule::End { 2 } else { 3 };
    };
    let (cfa_kind, offset) = match cfa {
        Cfa::Sp(offset) => (0, offset),
        Cfa::Fp(offset) => (1, offset),
        Cfa::AtFp(offset) => (2, offset),
    };
    let (fp_kind, fp) = match fp {
        Saved::Same => (0, 0),
        Saved::AtCfa(offset) => (1, offset),
        Saved::AtFp(offset) => (2, offset),
    };
    let twelve = |offset: i16| u64::from((offset / 8).cast_unsigned() & 0xFFF);
    if [ra, fp].iter().any(|offset| !(-2_048 * 8..2_048 * 8).contains(&i32::from(*offset))) {
        return 3;
    }
    1 | cfa_kind << 2
        | fp_kind << 4
        | u64::from(offset.cast_unsigned()) << 6
        | twelve(ra) << 38
        | twelve(fp) << 50
}

fn unpack(packed: u64) -> Rule {
    let twelve = |shift: u32| {
        let bits = ((packed >> shift) & 0xFFF) as u16;
        // Sign of 12 bits.
        ((bits << 4).cast_signed() >> 4) * 8
    };
    let offset = (((packed >> 6) & 0xFFFF_FFFF) as u32).cast_signed();
    let cfa = match (packed >> 2) & 3 {
        0 => Cfa::Sp(offset),
        1 => Cfa::Fp(offset),
        _ => Cfa::AtFp(offset),
    };
    let fp = match (packed >> 4) & 3 {
        0 => Saved::Same,
        1 => Saved::AtCfa(twelve(50)),
        _ => Saved::AtFp(twelve(50)),
    };
    match packed & 3 {
        1 => Rule::Caller { cfa, ra: twelve(38), fp },
        2 => Rule::End,
        _ => Rule::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_rule_comes_out_of_the_cache_as_it_went_in() {
        for cfa in [Cfa::Sp(8), Cfa::Fp(16), Cfa::AtFp(-8), Cfa::Sp(1 << 20), Cfa::Fp(-40)] {
            for fp in [
                Saved::Same,
                Saved::AtCfa(-16),
                Saved::AtCfa(-16_384),
                Saved::AtFp(0),
                Saved::AtFp(-8),
            ] {
                let rule = Rule::Caller { cfa, ra: -8, fp };
                assert_eq!(unpack(pack(rule)), rule);
            }
        }
        assert_eq!(
            (unpack(pack(Rule::End)), unpack(pack(Rule::Unknown))),
            (Rule::End, Rule::Unknown)
        );
        let far = Rule::Caller { cfa: Cfa::Sp(8), ra: -8, fp: Saved::AtCfa(-32_000) };
        assert_eq!(unpack(pack(far)), Rule::Unknown, "beyond the packed form: said, not wrong");
    }

    /// Frames of a walk from here, through `left` more calls.
    #[inline(never)]
    fn deep(left: u32, tables: bool) -> Vec<u64> {
        if left > 0 {
            return std::hint::black_box(deep(left - 1, tables));
        }
        prepare();
        let here = Registers::here();
        let top = unwind::top(&Cell::new((0, 0)), here.sp);
        // The caller's registers, by this function's own frame pointer.
        let Step::Caller(start) = unwind::frame(&here, top, &|_| true) else { panic!("no caller") };
        let stack = match tables {
            true => walk(&start, top, |_| false),
            false => unwind::walk(&start, top, |_| true),
        };
        stack.frames[..stack.len].to_vec()
    }

    #[test]
    #[cfg(all(target_env = "gnu", target_arch = "x86_64"))]
    fn tables_find_the_frames_that_frame_pointers_find() {
        let (tables, pointers) = (deep(20, true), deep(20, false));
        // Frame 20 is this function, which calls from two places; the last is below what FP walks see.
        assert!(pointers.len() > 25 && tables.len() >= pointers.len(), "{tables:x?} {pointers:x?}");
        assert_eq!((&tables[..20], &tables[21..26]), (&pointers[..20], &pointers[21..26]));
    }

    static SEEN: Mutex<Vec<u64>> = Mutex::new(Vec::new());

    extern "C" fn compare(_: *const c_void, _: *const c_void) -> c_int {
        *SEEN.lock().expect("no panic") = deep(0, true);
        0
    }

    #[test]
    #[cfg(all(target_env = "gnu", target_arch = "x86_64"))]
    fn a_walk_goes_through_a_library_without_frame_pointers() {
        let outside = deep(0, true);
        let mut values = [2u8, 1];
        // SAFETY: two elements of one byte each; compare reads neither.
        unsafe { libc::qsort(values.as_mut_ptr().cast(), 2, 1, Some(compare)) };
        let inside = SEEN.lock().expect("no panic").clone();
        // compare, qsort and what it calls; then this function's callers, frame by frame.
        let more = inside.len() - outside.len();
        assert!((2..6).contains(&more), "{outside:x?} {inside:x?}");
        assert_eq!(inside[more + 2..], outside[2..]);
    }

    #[test]
    fn nothing_outside_of_the_stack_is_read() {
        let stack = [1u64, 2, 3, 4];
        let low = stack.as_ptr().expose_provenance() as u64;
        let top = low + 32;
        assert_eq!([word(low, low, top), word(low + 24, low, top)], [Some(1), Some(4)]);
        for outside in [low - 8, low + 1, low + 25, low + 32, u64::MAX - 7, 0] {
            assert_eq!(word(outside, low, top), None);
        }
    }
}
