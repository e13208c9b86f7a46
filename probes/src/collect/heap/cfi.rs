//! Call frame information: what a compiler wrote into `.eh_frame` about where a function keeps its
//! caller's registers (DWARF 5, 6.4; LSB 5, 10.6). Pure: memory is a function from address to byte.
//!
//! Only what a walk from caller to caller needs: the canonical frame address, the return address and the
//! frame pointer. A rule that needs more (a CFA from another register, expressions beyond the one that
//! gcc writes for realigned stacks, signal frames) ends the walk.

/// Where the frame pointer and the stack pointer stand in DWARF's numbering, and the return address.
#[derive(Debug, Clone, Copy)]
pub(super) struct Numbers {
    sp: u64,
    fp: u64,
    ra: u64,
}

/// x86-64 psABI, figure 3.36.
#[cfg(any(test, not(target_arch = "aarch64")))]
pub(super) const NATIVE: Numbers = Numbers { sp: 7, fp: 6, ra: 16 };
/// AADWARF64, 4.1.
#[cfg(all(not(test), target_arch = "aarch64"))]
pub(super) const NATIVE: Numbers = Numbers { sp: 31, fp: 29, ra: 30 };

/// How to compute the caller's stack pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cfa {
    /// Stack pointer plus.
    Sp(i32),
    /// Frame pointer plus.
    Fp(i32),
    /// The word at frame pointer plus: stacks that gcc realigned.
    AtFp(i32),
}

/// Where the caller's frame pointer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Saved {
    /// Still in its register.
    Same,
    /// In memory, from the CFA.
    AtCfa(i16),
    /// In memory, from the frame pointer: stacks that gcc realigned.
    AtFp(i16),
}

/// What to do at one code address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// Go on to the caller.
    Caller {
        /// The caller's stack pointer.
        cfa: Cfa,
        /// The return address lies here, from the CFA.
        ra: i16,
        /// Where the caller's frame pointer is.
        fp: Saved,
    },
    /// The outermost frame.
    End,
    /// Nothing is known, or it is beyond us.
    Unknown,
}

/// Reads on from an address.
struct Reader<'a, M> {
    memory: &'a M,
    at: u64,
}

impl<M: Fn(u64) -> Option<u8>> Reader<'_, M> {
    fn u8(&mut self) -> Option<u8> {
        let byte = (self.memory)(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn fixed(&mut self, bytes: u32) -> Option<u64> {
        (0..bytes).try_fold(0, |value, index| Some(value | u64::from(self.u8()?) << (8 * index)))
    }

    fn i32(&mut self) -> Option<i64> {
        let value = u32::try_from(self.fixed(4)?).ok()?;
        Some(i64::from(value.cast_signed()))
    }

    fn uleb(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn sleb(&mut self) -> Option<i64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let unused = 64 - (shift + 7).min(64);
                return Some((value << unused).cast_signed() >> unused);
            }
        }
        None
    }

    /// An encoded address (LSB 10.5.1): absolute or relative to itself, in the formats that compilers use.
    fn encoded(&mut self, encoding: u8) -> Option<u64> {
        let base = if encoding & 0x70 == 0x10 { self.at } else { 0 };
        if !matches!(encoding & 0xF0, 0x00 | 0x10) {
            return None;
        }
        let value = match encoding & 0x0F {
            0x00 | 0x04 | 0x0C => self.fixed(8)?,
            0x03 => self.fixed(4)?,
            0x0B => self.i32()?.cast_unsigned(),
            _ => return None,
        };
        Some(base.wrapping_add(value))
    }
}

/// The part that functions of a file share.
#[derive(Debug, Clone, Copy)]
struct Common {
    code_align: u64,
    data_align: i64,
    encoding: u8,
    augmented: bool,
    signal: bool,
    program: (u64, u64),
}

fn common<M: Fn(u64) -> Option<u8>>(memory: &M, at: u64, native: Numbers) -> Option<Common> {
    let mut read = Reader { memory, at };
    let length = read.fixed(4)?;
    let end = read.at.checked_add(length)?;
    if length >= 0xFFFF_FFF0 || read.fixed(4)? != 0 {
        return None;
    }
    let version = read.u8()?;
    let mut text = [0u8; 8];
    let mut len = 0;
    loop {
        match read.u8()? {
            0 => break,
            letter => *text.get_mut(len)? = letter,
        }
        len += 1;
    }
    let (code_align, data_align) = (read.uleb()?, read.sleb()?);
    let ra = if version == 1 { u64::from(read.u8()?) } else { read.uleb()? };
    if ra != native.ra {
        return None;
    }
    let mut common = Common {
        code_align,
        data_align,
        encoding: 0,
        augmented: text[0] == b'z',
        signal: false,
        program: (0, end),
    };
    if common.augmented {
        let from = read.uleb()?;
        let program = read.at.checked_add(from)?;
        for letter in &text[1..len] {
            match letter {
                b'R' => common.encoding = read.u8()?,
                b'L' => drop(read.u8()?),
                b'P' => {
                    let encoding = read.u8()?;
                    // The personality may be behind a pointer (0x80): its length is the same.
                    read.encoded(encoding & 0x7F)?;
                }
                b'S' => common.signal = true,
                b'B' => {}
                _ => return None,
            }
        }
        read.at = program;
    } else if len > 0 {
        return None;
    }
    common.program.0 = read.at;
    Some(common)
}

/// Finds the description of the function around `pc` through the sorted table in `.eh_frame_hdr` at
/// `header`, and the rule for `pc`.
pub(super) fn rule<M: Fn(u64) -> Option<u8>>(memory: &M, header: u64, pc: u64) -> Rule {
    match describe(memory, header, pc, NATIVE) {
        Some(rule) => rule,
        None => Rule::Unknown,
    }
}

fn describe<M: Fn(u64) -> Option<u8>>(
    memory: &M,
    header: u64,
    pc: u64,
    native: Numbers,
) -> Option<Rule> {
    let mut read = Reader { memory, at: header };
    let (version, frames, count, table) = (read.u8()?, read.u8()?, read.u8()?, read.u8()?);
    // What every linker writes: count as u32, table of i32 pairs relative to the header.
    if (version, count, table) != (1, 0x03, 0x3B) {
        return None;
    }
    read.encoded(frames)?;
    let (count, table) = (read.fixed(4)?, read.at);
    let pair = |index: u64| {
        let mut read = Reader { memory, at: table + 8 * index };
        let start = header.wrapping_add_signed(read.i32()?);
        Some((start, header.wrapping_add_signed(read.i32()?)))
    };
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if pair(middle)?.0 <= pc { low = middle + 1 } else { high = middle }
    }
    let (_, at) = pair(low.checked_sub(1)?)?;
    function(memory, at, pc, native)
}

/// The rule for `pc` by the function description at `at`.
fn function<M: Fn(u64) -> Option<u8>>(
    memory: &M,
    at: u64,
    pc: u64,
    native: Numbers,
) -> Option<Rule> {
    let mut read = Reader { memory, at };
    let length = read.fixed(4)?;
    let (end, back) = (read.at.checked_add(length)?, read.at);
    if length >= 0xFFFF_FFF0 {
        return None;
    }
    let common = common(memory, back.checked_sub(read.fixed(4)?)?, native)?;
    let start = read.encoded(common.encoding)?;
    // The length of the function has the same format, and is never relative.
    let bytes = read.encoded(common.encoding & 0x0F)?;
    if common.signal || !(start..start.wrapping_add(bytes)).contains(&pc) {
        return None;
    }
    if common.augmented {
        let skip = read.uleb()?;
        read.at = read.at.checked_add(skip)?;
    }
    let mut state = State { row: Row::default(), initial: Row::default(), loc: start, native };
    state.run(memory, common.program, &common, pc)?;
    state.initial = state.row;
    state.run(memory, (read.at, end), &common, pc)?;
    state.row.rule()
}

/// Where a register of the caller is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    #[default]
    Same,
    At(i64),
    AtFp(i64),
    Gone,
    Beyond,
}

#[derive(Debug, Clone, Copy, Default)]
struct Row {
    cfa: Option<Cfa>,
    ra: Place,
    fp: Place,
}

impl Row {
    fn rule(self) -> Option<Rule> {
        let offset = |value: i64| i16::try_from(value).ok().filter(|value| value % 8 == 0);
        let ra = match self.ra {
            Place::Gone => return Some(Rule::End),
            Place::At(at) => offset(at)?,
            Place::Same | Place::AtFp(_) | Place::Beyond => return None,
        };
        let fp = match self.fp {
            Place::Same => Saved::Same,
            Place::At(at) => Saved::AtCfa(offset(at)?),
            Place::AtFp(at) => Saved::AtFp(offset(at)?),
            Place::Gone | Place::Beyond => return None,
        };
        Some(Rule::Caller { cfa: self.cfa?, ra, fp })
    }
}

struct State {
    row: Row,
    initial: Row,
    loc: u64,
    native: Numbers,
}

/// Rows that may be remembered at a time; compilers nest once.
const REMEMBERED: usize = 4;

impl State {
    /// Runs instructions up to `pc`.
    fn run<M: Fn(u64) -> Option<u8>>(
        &mut self,
        memory: &M,
        program: (u64, u64),
        common: &Common,
        pc: u64,
    ) -> Option<()> {
        let mut read = Reader { memory, at: program.0 };
        let (mut kept, mut depth) = ([Row::default(); REMEMBERED], 0usize);
        while read.at < program.1 {
            let op = read.u8()?;
            let low = u64::from(op & 0x3F);
            let advance = match op {
                0x40..=0x7F => low,
                0x02 => read.fixed(1)?,
                0x03 => read.fixed(2)?,
                0x04 => read.fixed(4)?,
                0x0A => {
                    *kept.get_mut(depth)? = self.row;
                    depth += 1;
                    continue;
                }
                0x0B => {
                    depth = depth.checked_sub(1)?;
                    self.row = kept[depth];
                    continue;
                }
                _ => {
                    self.change(&mut read, op, common)?;
                    continue;
                }
            };
            self.loc = self.loc.checked_add(advance.checked_mul(common.code_align)?)?;
            if self.loc > pc {
                return Some(());
            }
        }
        Some(())
    }

    fn change<M: Fn(u64) -> Option<u8>>(
        &mut self,
        read: &mut Reader<'_, M>,
        op: u8,
        common: &Common,
    ) -> Option<()> {
        let scaled = |value: u64| i64::try_from(value).ok()?.checked_mul(common.data_align);
        let low = u64::from(op & 0x3F);
        match op {
            0x80..=0xBF => {
                let at = scaled(read.uleb()?)?;
                self.place(low, Place::At(at));
            }
            0xC0..=0xFF => self.restore(low),
            // nop; GNU_args_size and negate_ra_state say nothing about where things lie.
            0x00 | 0x2D => {}
            0x2E => drop(read.uleb()?),
            0x05 => {
                let (register, at) = (read.uleb()?, read.uleb()?);
                self.place(register, Place::At(scaled(at)?));
            }
            0x06 => {
                let register = read.uleb()?;
                self.restore(register);
            }
            0x07 => self.place(read.uleb()?, Place::Gone),
            0x08 => self.place(read.uleb()?, Place::Same),
            0x09 => {
                let (register, _) = (read.uleb()?, read.uleb()?);
                self.place(register, Place::Beyond);
            }
            0x0C => {
                let (register, offset) = (read.uleb()?, read.uleb()?);
                self.cfa(register, i64::try_from(offset).ok()?);
            }
            0x0D => {
                let register = read.uleb()?;
                let offset = match self.row.cfa? {
                    Cfa::Sp(offset) | Cfa::Fp(offset) | Cfa::AtFp(offset) => offset,
                };
                self.cfa(register, i64::from(offset));
            }
            0x0E => {
                let offset = i64::try_from(read.uleb()?).ok()?;
                self.offset(offset);
            }
            0x0F => self.expression(read)?,
            0x10 => {
                let register = read.uleb()?;
                let place = self.saved(read)?;
                self.place(register, place);
            }
            0x16 => {
                let (register, length) = (read.uleb()?, read.uleb()?);
                read.at = read.at.checked_add(length)?;
                self.place(register, Place::Beyond);
            }
            0x11 => {
                let (register, factor) = (read.uleb()?, read.sleb()?);
                self.place(register, Place::At(factor.checked_mul(common.data_align)?));
            }
            0x12 => {
                let (register, factor) = (read.uleb()?, read.sleb()?);
                self.cfa(register, factor.checked_mul(common.data_align)?);
            }
            0x13 => {
                let factor = read.sleb()?;
                self.offset(factor.checked_mul(common.data_align)?);
            }
            _ => return None,
        }
        Some(())
    }

    fn cfa(&mut self, register: u64, offset: i64) {
        let offset = i32::try_from(offset).ok();
        self.row.cfa = match register {
            _ if register == self.native.sp => offset.map(Cfa::Sp),
            _ if register == self.native.fp => offset.map(Cfa::Fp),
            _ => None,
        };
    }

    fn offset(&mut self, offset: i64) {
        let register = match self.row.cfa {
            Some(Cfa::Fp(_)) => self.native.fp,
            _ => self.native.sp,
        };
        self.cfa(register, offset);
    }

    /// `DW_OP_breg6 n, DW_OP_deref`: gcc keeps the caller's stack pointer below a realigned frame.
    fn expression<M: Fn(u64) -> Option<u8>>(&mut self, read: &mut Reader<'_, M>) -> Option<()> {
        let length = read.uleb()?;
        let after = read.at.checked_add(length)?;
        let register = u64::from(read.u8()?.wrapping_sub(0x70));
        let offset = read.sleb()?;
        let known = register == self.native.fp && read.u8()? == 0x06 && read.at == after;
        self.row.cfa = if known { Some(Cfa::AtFp(i32::try_from(offset).ok()?)) } else { None };
        read.at = after;
        Some(())
    }

    /// `DW_OP_breg6 n` for a register of a realigned frame: it lies at the frame pointer plus n.
    fn saved<M: Fn(u64) -> Option<u8>>(&self, read: &mut Reader<'_, M>) -> Option<Place> {
        let length = read.uleb()?;
        let after = read.at.checked_add(length)?;
        let register = u64::from(read.u8()?.wrapping_sub(0x70));
        let offset = read.sleb()?;
        let known = register == self.native.fp && read.at == after;
        read.at = after;
        Some(if known { Place::AtFp(offset) } else { Place::Beyond })
    }

    fn place(&mut self, register: u64, place: Place) {
        if register == self.native.ra {
            self.row.ra = place;
        } else if register == self.native.fp {
            self.row.fp = place;
        }
    }

    fn restore(&mut self, register: u64) {
        let initial = if register == self.native.ra { self.initial.ra } else { self.initial.fp };
        self.place(register, initial);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file's worth of frames at address 0x1000: header, one common part, one function 0x8000..0x8100
    /// with this program.
    fn image(program: &[u8]) -> Vec<u8> {
        let mut common = vec![0, 0, 0, 0, 1, b'z', b'R', 0, 1, 0x78, 16, 1, 0x0B];
        // def_cfa rsp+8; the return address at cfa-8.
        common.extend([0x0C, 7, 8, 0x90, 1]);
        let mut image = vec![1, 0x1B, 0x03, 0x3B];
        image.extend(8u32.to_le_bytes());
        image.extend(1u32.to_le_bytes());
        let function_at = 20 + 4 + i32::try_from(common.len()).unwrap();
        image.extend(0x7000i32.to_le_bytes());
        image.extend(function_at.to_le_bytes());
        image.extend(u32::try_from(common.len()).unwrap().to_le_bytes());
        image.extend(&common);
        let mut function = Vec::new();
        function.extend((function_at + 4 - 20).to_le_bytes());
        function.extend(0x8000i32.to_le_bytes());
        function.extend(0x100i32.to_le_bytes());
        function.push(0);
        function.extend(program);
        image.extend(u32::try_from(function.len()).unwrap().to_le_bytes());
        image.extend(function);
        image
    }

    fn at(program: &[u8], pc: u64) -> Rule {
        let image = image(program);
        let memory = |address: u64| image.get(usize::try_from(address - 0x1000).ok()?).copied();
        rule(&memory, 0x1000, pc)
    }

    fn caller(cfa: Cfa, fp: Saved) -> Rule {
        Rule::Caller { cfa, ra: -8, fp }
    }

    #[test]
    fn a_function_that_pushes_and_pops() {
        // push rbp; after 1: cfa rsp+16, rbp at -16. mov rbp, rsp; after 3: cfa by rbp. leave at 0x50.
        let program = [0x41, 0x0E, 16, 0x86, 2, 0x43, 0x0D, 6, 0x02, 0x4C, 0x0C, 7, 8, 0xC6];
        assert_eq!(at(&program, 0x8000), caller(Cfa::Sp(8), Saved::Same));
        assert_eq!(at(&program, 0x8001), caller(Cfa::Sp(16), Saved::AtCfa(-16)));
        assert_eq!(at(&program, 0x8004), caller(Cfa::Fp(16), Saved::AtCfa(-16)));
        assert_eq!(at(&program, 0x804F), caller(Cfa::Fp(16), Saved::AtCfa(-16)));
        assert_eq!(at(&program, 0x8050), caller(Cfa::Sp(8), Saved::Same));
    }

    #[test]
    fn rows_are_remembered_and_large_frames_have_large_offsets() {
        let program = [0x41, 0x0E, 0xC0, 0x80, 0x04, 0x0A, 0x41, 0x0E, 8, 0x41, 0x0B];
        assert_eq!(at(&program, 0x8001), caller(Cfa::Sp(65_600), Saved::Same));
        assert_eq!(at(&program, 0x8002), caller(Cfa::Sp(8), Saved::Same));
        assert_eq!(at(&program, 0x8003), caller(Cfa::Sp(65_600), Saved::Same));
    }

    #[test]
    fn a_realigned_stack_is_followed_through_its_frame_pointer() {
        // cfa = *(rbp - 8), rbp at rbp + 0.
        let program = [0x0F, 3, 0x76, 0x78, 0x06, 0x10, 6, 2, 0x76, 0];
        assert_eq!(at(&program, 0x8000), caller(Cfa::AtFp(-8), Saved::AtFp(0)));
    }

    #[test]
    fn the_outermost_frame_has_no_return_address() {
        assert_eq!(at(&[0x07, 16], 0x8000), Rule::End);
    }

    #[test]
    fn what_is_beyond_us_is_unknown_and_never_read_past() {
        assert_eq!(at(&[0x0C, 10, 0], 0x8000), Rule::Unknown, "cfa by r10");
        assert_eq!(at(&[0x0F, 1, 0x30], 0x8000), Rule::Unknown, "another expression");
        assert_eq!(at(&[0x3F], 0x8000), Rule::Unknown, "an unknown instruction");
        assert_eq!(at(&[0x0B], 0x8000), Rule::Unknown, "a restore without a remember");
        assert_eq!(at(&[], 0x7FFF), Rule::Unknown, "before the first function");
        assert_eq!(at(&[], 0x8100), Rule::Unknown, "behind the last");
        let whole = image(&[0x41, 0x0E, 16]);
        for length in 0..whole.len() {
            let cut = &whole[..length];
            let memory = |address: u64| {
                cut.get(usize::try_from(address.checked_sub(0x1000)?).ok()?).copied()
            };
            assert_eq!(rule(&memory, 0x1000, 0x8002), Rule::Unknown, "cut at {length}");
        }
    }
}
