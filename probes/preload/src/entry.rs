#![expect(unsafe_code, reason = "exported C symbols; naked functions that jump to the next malloc")]
//! What the program calls. Each function either jumps on to the allocator behind us or into `hook` with
//! the caller's registers, from which a stack walk starts.
//!
//! On x86-64 the fast paths are written out: load the countdown's place, subtract the size and one, branch
//! for `malloc`; test twelve bits, branch for `free`. No frame, no call: the allocator behind us returns to
//! the program. Elsewhere every call goes through `hook`.

use core::arch::naked_asm;
use core::ffi::c_int;

use crate::real::Block;
use crate::{hook, real};

/// C's `malloc`.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn malloc(size: usize) -> Block {
    naked_asm!(
        "mov rax, qword ptr [rip + tailbeam_preload_thread@GOTTPOFF]",
        "lea rcx, [rdi + 1]",
        "sub qword ptr fs:[rax], rcx",
        "jb 2f",
        "jmp qword ptr [rip + {real}]",
        "2:",
        "mov rsi, qword ptr [rsp]",
        "lea rdx, [rsp + 8]",
        "mov rcx, rbp",
        "jmp {slow}",
        real = sym real::MALLOC,
        slow = sym hook::malloc,
    )
}

/// C's `realloc`. Without a block it is `malloc`, which many programs make of it.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn realloc(block: Block, size: usize) -> Block {
    naked_asm!(
        "test rdi, rdi",
        "jnz 3f",
        "mov rdi, rsi",
        "mov rax, qword ptr [rip + tailbeam_preload_thread@GOTTPOFF]",
        "lea rcx, [rdi + 1]",
        "sub qword ptr fs:[rax], rcx",
        "jb 2f",
        "jmp qword ptr [rip + {real}]",
        "2:",
        "mov rsi, qword ptr [rsp]",
        "lea rdx, [rsp + 8]",
        "mov rcx, rbp",
        "jmp {slow}",
        "3:",
        "mov rdx, qword ptr [rsp]",
        "lea rcx, [rsp + 8]",
        "mov r8, rbp",
        "jmp {again}",
        real = sym real::MALLOC,
        slow = sym hook::malloc,
        again = sym hook::realloc,
    )
}

/// C's `calloc`.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn calloc(count: usize, size: usize) -> Block {
    naked_asm!(
        "mov rax, rdi",
        "mul rsi",
        // An overflow is the real one's to refuse.
        "jo 3f",
        "mov rcx, qword ptr [rip + tailbeam_preload_thread@GOTTPOFF]",
        "inc rax",
        "sub qword ptr fs:[rcx], rax",
        "jb 2f",
        "3:",
        "jmp qword ptr [rip + {real}]",
        "2:",
        "mov rdx, qword ptr [rsp]",
        "lea rcx, [rsp + 8]",
        "mov r8, rbp",
        "jmp {slow}",
        real = sym real::CALLOC,
        slow = sym hook::calloc,
    )
}

/// C's `free`.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn free(block: Block) {
    naked_asm!(
        "test edi, 0xfff",
        "jz 2f",
        "jmp qword ptr [rip + {next}]",
        "2:",
        "test rdi, rdi",
        "jz 3f",
        "jmp {slow}",
        "3:",
        "ret",
        next = sym real::FREE_NEXT,
        slow = sym hook::free,
    )
}

/// Names of C that always go through `hook`, with the caller's registers after their own arguments.
macro_rules! through {
    ($($name:ident($($arg:ident: $of:ty),*) -> $result:ty, $with:ident;)*) => {$(
        /// C's function of this name.
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($arg: $of),*) -> $result {
            $with!(hook::$name)
        }
    )*};
}

#[cfg(target_arch = "x86_64")]
macro_rules! after_one {
    ($hook:path) => {
        naked_asm!("mov rsi, [rsp]", "lea rdx, [rsp + 8]", "mov rcx, rbp", "jmp {}", sym $hook)
    };
}
#[cfg(target_arch = "x86_64")]
macro_rules! after_two {
    ($hook:path) => {
        naked_asm!("mov rdx, [rsp]", "lea rcx, [rsp + 8]", "mov r8, rbp", "jmp {}", sym $hook)
    };
}
#[cfg(target_arch = "x86_64")]
macro_rules! after_three {
    ($hook:path) => {
        naked_asm!("mov rcx, [rsp]", "lea r8, [rsp + 8]", "mov r9, rbp", "jmp {}", sym $hook)
    };
}
#[cfg(target_arch = "aarch64")]
macro_rules! after_one {
    ($hook:path) => {
        naked_asm!("mov x1, x30", "mov x2, sp", "mov x3, x29", "b {}", sym $hook)
    };
}
#[cfg(target_arch = "aarch64")]
macro_rules! after_two {
    ($hook:path) => {
        naked_asm!("mov x2, x30", "mov x3, sp", "mov x4, x29", "b {}", sym $hook)
    };
}
#[cfg(target_arch = "aarch64")]
macro_rules! after_three {
    ($hook:path) => {
        naked_asm!("mov x3, x30", "mov x4, sp", "mov x5, x29", "b {}", sym $hook)
    };
}

through! {
    reallocarray(block: Block, count: usize, size: usize) -> Block, after_three;
    memalign(align: usize, size: usize) -> Block, after_two;
    aligned_alloc(align: usize, size: usize) -> Block, after_two;
    posix_memalign(out: *mut Block, align: usize, size: usize) -> c_int, after_three;
    valloc(size: usize) -> Block, after_one;
    pvalloc(size: usize) -> Block, after_one;
}

#[cfg(not(target_arch = "x86_64"))]
through! {
    malloc(size: usize) -> Block, after_one;
    calloc(count: usize, size: usize) -> Block, after_two;
    realloc(block: Block, size: usize) -> Block, after_two;
}

/// C's `free`.
#[cfg(not(target_arch = "x86_64"))]
#[unsafe(no_mangle)]
unsafe extern "C" fn free(block: Block) {
    hook::free(block);
}

/// C23's `free_sized`, and below its kin: the size is the program's promise and tells us nothing.
#[unsafe(no_mangle)]
unsafe extern "C" fn free_sized(block: Block, _size: usize) {
    hook::free(block);
}

/// C23's `free_aligned_sized`.
#[unsafe(no_mangle)]
unsafe extern "C" fn free_aligned_sized(block: Block, _align: usize, _size: usize) {
    hook::free(block);
}

/// What `free` was also called before glibc 2.26.
#[unsafe(no_mangle)]
unsafe extern "C" fn cfree(block: Block) {
    hook::free(block);
}

/// C's `malloc_usable_size`: every block is one of the allocator behind us, so its answer holds.
#[unsafe(no_mangle)]
unsafe extern "C" fn malloc_usable_size(block: Block) -> usize {
    match real::is_boot(block) {
        true => real::boot_room(block),
        false => real::usable(block),
    }
}
