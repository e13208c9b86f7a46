#![expect(unsafe_code, reason = "the allocator behind us is called through addresses from dlsym")]
//! The program's own allocator: what `RTLD_NEXT` finds behind this object, so glibc's in most programs
//! and jemalloc's in one that is linked with it.
//!
//! Each function is a word that `entry` jumps through. Until the first call it names a function here
//! that asks dlsym for all of them. dlsym may allocate: what it asks for meanwhile comes from a few
//! static pages and is never given back.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::mem::transmute;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

/// A block, or null.
pub(crate) type Block = *mut c_void;

unsafe extern "C" {
    // glibc's names for its own allocator, for the case that dlsym finds nothing.
    fn __libc_malloc(size: usize) -> Block;
    fn __libc_calloc(count: usize, size: usize) -> Block;
    fn __libc_realloc(block: Block, size: usize) -> Block;
    fn __libc_free(block: Block);
    fn __libc_memalign(align: usize, size: usize) -> Block;
}

type One = unsafe extern "C" fn(usize) -> Block;
type Two = unsafe extern "C" fn(usize, usize) -> Block;
type Again = unsafe extern "C" fn(Block, usize) -> Block;
type Free = unsafe extern "C" fn(Block);
type Posix = unsafe extern "C" fn(*mut Block, usize, usize) -> c_int;
type Usable = unsafe extern "C" fn(Block) -> usize;

pub(crate) static MALLOC: AtomicPtr<c_void> = AtomicPtr::new(first_malloc as *mut c_void);
pub(crate) static CALLOC: AtomicPtr<c_void> = AtomicPtr::new(first_calloc as *mut c_void);
/// Where `free` goes with an address that cannot be a picked one: the real one, or `hook` in exact mode.
pub(crate) static FREE_NEXT: AtomicPtr<c_void> = AtomicPtr::new(first_free as *mut c_void);
static FREE: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());
static REALLOC: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());
static MEMALIGN: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());
static ALIGNED_ALLOC: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());
static POSIX_MEMALIGN: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());
static VALLOC: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());
static PVALLOC: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());
static USABLE: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());

static RESOLVED: AtomicBool = AtomicBool::new(false);
static RESOLVING: AtomicBool = AtomicBool::new(false);

/// Looks up every function, once. Returns whether they are known; false only inside dlsym.
pub(crate) fn resolve() -> bool {
    // Acquire pairs with the Release below: whoever sees it sees the addresses.
    if RESOLVED.load(Ordering::Acquire) {
        return true;
    }
    // The loader's own first call gets here before there are threads; a second caller is dlsym's.
    if RESOLVING.swap(true, Ordering::AcqRel) {
        return false;
    }
    let functions: [(&AtomicPtr<c_void>, &CStr, *mut c_void); 10] = [
        (&REALLOC, c"realloc", __libc_realloc as *mut c_void),
        (&MEMALIGN, c"memalign", __libc_memalign as *mut c_void),
        (&ALIGNED_ALLOC, c"aligned_alloc", __libc_memalign as *mut c_void),
        (&POSIX_MEMALIGN, c"posix_memalign", core::ptr::null_mut()),
        (&VALLOC, c"valloc", core::ptr::null_mut()),
        (&PVALLOC, c"pvalloc", core::ptr::null_mut()),
        (&USABLE, c"malloc_usable_size", core::ptr::null_mut()),
        (&CALLOC, c"calloc", __libc_calloc as *mut c_void),
        (&FREE, c"free", __libc_free as *mut c_void),
        (&MALLOC, c"malloc", __libc_malloc as *mut c_void),
    ];
    for (word, name, otherwise) in functions {
        let found = next(name);
        word.store(if found.is_null() { otherwise } else { found }, Ordering::Relaxed);
    }
    FREE_NEXT.store(FREE.load(Ordering::Relaxed), Ordering::Relaxed);
    RESOLVED.store(true, Ordering::Release);
    true
}

fn next(name: &CStr) -> *mut c_void {
    // SAFETY: a string that ends in 0; RTLD_NEXT is meant for wrappers like this one (man 3 dlsym).
    unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr().cast::<c_char>()) }
}

/// Whether the allocator behind us is glibc's, whose chunk headers say which blocks are mmapped.
pub(crate) fn is_glibc() -> bool {
    let own: *mut c_void = __libc_malloc as *mut c_void;
    MALLOC.load(Ordering::Relaxed) == own
}

/// Page-sized, so that `free` sends each of these addresses to the slow path.
#[repr(C, align(4096))]
struct Pages(core::cell::UnsafeCell<[u8; BOOT_BYTES]>);
// SAFETY: every range of it is handed out once, by an atomic addition.
unsafe impl Sync for Pages {}

const PAGE: usize = 4096;
const BOOT_BYTES: usize = 16 * PAGE;
static BOOT: Pages = Pages(core::cell::UnsafeCell::new([0; BOOT_BYTES]));
static BOOT_USED: AtomicUsize = AtomicUsize::new(0);

/// A zeroed block while dlsym runs; null when its pages are used up.
fn boot(size: usize) -> Block {
    let wanted = size.max(1).next_multiple_of(PAGE);
    if size > BOOT_BYTES {
        return core::ptr::null_mut();
    }
    let at = BOOT_USED.fetch_add(wanted, Ordering::Relaxed);
    if at.saturating_add(wanted) > BOOT_BYTES {
        return core::ptr::null_mut();
    }
    BOOT.0.get().cast::<u8>().wrapping_add(at).cast()
}

/// Whether a block came from the static pages; it is never freed and holds at most what they hold.
pub(crate) fn is_boot(block: Block) -> bool {
    (block as usize).wrapping_sub(BOOT.0.get() as usize) < BOOT_BYTES
}

/// Bytes that may be read from a block of the static pages.
pub(crate) fn boot_room(block: Block) -> usize {
    BOOT_BYTES - (block as usize).wrapping_sub(BOOT.0.get() as usize)
}

unsafe extern "C" fn first_malloc(size: usize) -> Block {
    if resolve() { malloc(size) } else { boot(size) }
}

unsafe extern "C" fn first_calloc(count: usize, size: usize) -> Block {
    match (resolve(), count.checked_mul(size)) {
        (true, _) => calloc(count, size),
        (false, Some(bytes)) => boot(bytes),
        (false, None) => core::ptr::null_mut(),
    }
}

unsafe extern "C" fn first_free(block: Block) {
    if resolve() && !is_boot(block) {
        free(block);
    }
}

pub(crate) fn free(block: Block) {
    resolve();
    let address = FREE.load(Ordering::Relaxed);
    if !address.is_null() {
        // SAFETY: the word holds the address of C's free.
        let function = unsafe { transmute::<*mut c_void, Free>(address) };
        // SAFETY: our own caller called free with this block.
        unsafe { function(block) };
    }
}

/// Calls the allocator behind us through the word; resolves first where nobody has.
macro_rules! forward {
    ($(#[$doc:meta])* $name:ident, $word:ident, $type:ty, ($($arg:ident: $of:ty),*) -> $result:ty, $failed:expr) => {
        $(#[$doc])*
        pub(crate) fn $name($($arg: $of),*) -> $result {
            resolve();
            let address = $word.load(Ordering::Relaxed);
            if address.is_null() {
                return $failed;
            }
            // SAFETY: the word holds the address of the C function of this name and type, from dlsym.
            let function = unsafe { transmute::<*mut c_void, $type>(address) };
            // SAFETY: our own caller called the C function of this name with these arguments.
            unsafe { function($($arg),*) }
        }
    };
}

const NONE: Block = core::ptr::null_mut();

forward!(malloc, MALLOC, One, (size: usize) -> Block, NONE);
forward!(calloc, CALLOC, Two, (count: usize, size: usize) -> Block, NONE);
forward!(realloc, REALLOC, Again, (block: Block, size: usize) -> Block, NONE);
forward!(memalign, MEMALIGN, Two, (align: usize, size: usize) -> Block, NONE);
forward!(aligned_alloc, ALIGNED_ALLOC, Two, (align: usize, size: usize) -> Block, NONE);
forward!(posix_memalign, POSIX_MEMALIGN, Posix, (out: *mut Block, align: usize, size: usize) -> c_int, libc::ENOMEM);
forward!(valloc, VALLOC, One, (size: usize) -> Block, memalign(PAGE, size));
forward!(pvalloc, PVALLOC, One, (size: usize) -> Block, memalign(PAGE, size.next_multiple_of(PAGE)));
forward!(usable, USABLE, Usable, (block: Block) -> usize, 0);
