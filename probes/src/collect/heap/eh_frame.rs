#![expect(unsafe_code, reason = "asks the loader for a module and reads its unwind tables and the stack")]
//! Walks frames without frame pointers: by the tables in `.eh_frame`, which every object of a C or C++
//! program and every library has.
//!
//! The loader finds the tables of an address without a lock (`_dl_find_object`, glibc 2.35; where it is
//! missing nothing is walked this way). A rule is worked out once per code address, 0.2 to 1 us, and kept
//! in a fixed cache; then a frame costs a few ns. Words of the stack are read only between the stack
//! pointer and the end of the stack, so a stale rule (code that was unmapped and mapped anew) can give a
//! wrong frame and cannot fault.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::cfi::{self, Cfa, Rule, Saved};
use super::unwind::Registers;

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
    // SAFETY: any address may be asked for; the result has the layout that the header declares. The
    // function takes no lock and may be called from a signal handler (glibc manual, 37.2).
    let code = unsafe { find(std::ptr::without_provenance_mut(pc as usize), &raw mut found) };
    (code == 0).then_some(found)
}

/// Steps from a frame to its caller; `registers.ip` is a return address. Reads stack words from
/// `registers.sp` up to `top` only.
pub(super) fn step(registers: &Registers, top: u64) -> Step {
    // The call stands before the return address.
    let Rule::Caller { cfa, ra, fp } = known(registers.ip.wrapping_sub(1)) else {
        return match known(registers.ip.wrapping_sub(1)) {
            Rule::End => Step::End,
            _ => Step::Unknown,
        };
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
    if address % 8 != 0 || address < low || address > top.saturating_sub(8) {
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
    1 | cfa_kind << 2 | fp_kind << 4 | u64::from(offset.cast_unsigned()) << 6 | twelve(ra) << 38 | twelve(fp) << 50
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
    use super::*;

    #[test]
    fn a_rule_comes_out_of_the_cache_as_it_went_in() {
        for cfa in [Cfa::Sp(8), Cfa::Fp(16), Cfa::AtFp(-8), Cfa::Sp(1 << 20), Cfa::Fp(-40)] {
            for fp in [Saved::Same, Saved::AtCfa(-16), Saved::AtCfa(-16_384), Saved::AtFp(0), Saved::AtFp(-8)] {
                let rule = Rule::Caller { cfa, ra: -8, fp };
                assert_eq!(unpack(pack(rule)), rule);
            }
        }
        assert_eq!((unpack(pack(Rule::End)), unpack(pack(Rule::Unknown))), (Rule::End, Rule::Unknown));
        let far = Rule::Caller { cfa: Cfa::Sp(8), ra: -8, fp: Saved::AtCfa(-32_000) };
        assert_eq!(unpack(pack(far)), Rule::Unknown, "beyond the packed form: said, not wrong");
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
