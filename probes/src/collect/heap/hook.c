/* The fast paths of TailbeamAlloc, in one unit with mimalloc: so the compiler builds mimalloc's fast path into them,
   and a program pays one call per operation, as with mimalloc alone. Whatever is rare is done in Rust (global.rs).

   Each path ends in a jump, so it needs no frame, and the slow path finds the registers of the program. */

#include "static.c"

/* Mirrors cells.rs, which compares the layout with its own. */
#define TB_OWN 18
#define TB_LARGE ((size_t)1 << 20)
#define TB_COUNT_BITS 24
#define TB_NATURAL 8

typedef struct {
  uint64_t left;     /* units for allocations; negative: the slow path must follow */
  uint64_t freed;    /* units for frees */
  uint64_t kept;     /* bytes that reallocated objects had before and have still */
  uint64_t reallocs;
} tb_words;

typedef struct {
  uintptr_t base, span; /* what a free looks up */
  tb_words words[TB_OWN];
} tb_cells;

#define TB_EXTERN __attribute__((visibility("hidden"), externally_visible))

/* Stand-in of threads that have no cells: every word is negative and every address looked up. */
#define TB_MINUS { UINT64_MAX, UINT64_MAX, 0, 0 }
TB_EXTERN tb_cells tailbeam_nobodys = { 0, UINTPTR_MAX, { [0 ... TB_OWN - 1] = TB_MINUS } };

static __thread tb_cells* tb_own = &tailbeam_nobodys;

TB_EXTERN void tailbeam_use(tb_cells* cells) { tb_own = cells; }

/* What the slow path is asked for; global.rs has the same numbers. */
enum { TB_ALLOC, TB_ZEROED, TB_FREE, TB_REFILL, TB_RECORDED, TB_REFILL_RESIZED, TB_RESIZED };
#define TB_BY_CLASS 8

void* tailbeam_slow(size_t what, void* block, size_t old, size_t align, size_t size) __attribute__((visibility("hidden")));

static mi_decl_forceinline size_t tb_class(size_t size) {
  return 61 - (size_t)__builtin_clzll((uint64_t)(size - 1) | 7);
}

static mi_decl_forceinline tb_words* tb_words_of(tb_cells* cells, size_t size, bool by_class) {
  return &cells->words[by_class ? tb_class(size) : 0];
}

/* Takes `size` + 1 units from a word, less the 1 that it counts; true when it is negative now. */
static mi_decl_forceinline bool tb_take(uint64_t* word, size_t size) {
  *word -= (uint64_t)size << TB_COUNT_BITS | (((uint64_t)1 << TB_COUNT_BITS) - 1);
  return (int64_t)*word < 0;
}

static mi_decl_forceinline bool tb_may_be_recorded(const tb_cells* cells, const void* block, size_t size) {
  return mi_unlikely(size > TB_LARGE) || mi_unlikely((uintptr_t)block - cells->base < cells->span);
}

static mi_decl_forceinline void* tb_plain(size_t size, size_t align, bool zero) {
  if (mi_likely(align <= TB_NATURAL)) return zero ? mi_zalloc(size) : mi_malloc(size);
  return zero ? mi_zalloc_aligned(size, align) : mi_malloc_aligned(size, align);
}

static mi_decl_forceinline void* tb_alloc(size_t size, size_t align, bool zero, bool by_class) {
  const size_t what = (zero ? TB_ZEROED : TB_ALLOC) | (by_class ? TB_BY_CLASS : 0);
  if (mi_unlikely(size > TB_LARGE) || mi_unlikely(tb_take(&tb_words_of(tb_own, size, by_class)->left, size))) {
    return tailbeam_slow(what, NULL, 0, align, size);
  }
  return tb_plain(size, align, zero);
}

static mi_decl_noinline void* tb_alloc_larger(size_t size, size_t align) { return tb_alloc(size, align, false, false); }

TB_EXTERN void* tailbeam_alloc(size_t size, size_t align) {
  if (mi_unlikely(size > MI_SMALL_SIZE_MAX) || mi_unlikely(align > TB_NATURAL)) return tb_alloc_larger(size, align);
  if (mi_unlikely(tb_take(&tb_own->words[0].left, size))) return tailbeam_slow(TB_ALLOC, NULL, 0, align, size);
  return mi_theap_malloc_small_zero_nonnull(_mi_theap_default(), size, false, NULL);
}

TB_EXTERN void* tailbeam_alloc_by_class(size_t size, size_t align) { return tb_alloc(size, align, false, true); }
TB_EXTERN void* tailbeam_zeroed(size_t size, size_t align) { return tb_alloc(size, align, true, false); }
TB_EXTERN void* tailbeam_zeroed_by_class(size_t size, size_t align) { return tb_alloc(size, align, true, true); }

static mi_decl_forceinline void tb_free(void* block, size_t size, bool by_class) {
  tb_cells* const cells = tb_own;
  const size_t more = by_class ? TB_BY_CLASS : 0;
  if (tb_may_be_recorded(cells, block, size)) {
    tailbeam_slow(TB_FREE | more, block, size, 0, 0);
  }
  else if (mi_unlikely(tb_take(&tb_words_of(cells, size, by_class)->freed, size))) {
    tailbeam_slow(TB_REFILL | more, block, size, 0, 0);
  }
  else {
    mi_free_ex(block, NULL, _mi_ptr_page(block));
  }
}

TB_EXTERN void tailbeam_free(void* block, size_t size) { tb_free(block, size, false); }
TB_EXTERN void tailbeam_free_by_class(void* block, size_t size) { tb_free(block, size, true); }

/* Counts a reallocation as an allocation that is charged for what it grew by, unless it is large now. */
static mi_decl_forceinline bool tb_regrow(tb_cells* cells, size_t old, size_t size, bool by_class) {
  if (mi_unlikely(size > TB_LARGE)) return true;
  tb_words* const words = tb_words_of(cells, size, by_class);
  const size_t kept = old < size ? old : size;
  words->kept += kept;
  words->reallocs += 1;
  words->left -= (uint64_t)(size - kept) << TB_COUNT_BITS;
  return (int64_t)words->left < 0;
}

static mi_decl_forceinline void* tb_realloc(void* block, size_t old, size_t align, size_t size, bool by_class) {
  tb_cells* const cells = tb_own;
  const size_t more = by_class ? TB_BY_CLASS : 0;
  if (tb_may_be_recorded(cells, block, old)) {
    return tailbeam_slow(TB_RECORDED | more, block, old, align, size);
  }
  void* const grown = mi_likely(align <= TB_NATURAL) ? mi_realloc(block, size) : mi_realloc_aligned(block, size, align);
  if (mi_unlikely(grown == NULL)) return grown;
  const bool freed = tb_take(&tb_words_of(cells, old, by_class)->freed, old);
  const bool grew = tb_regrow(cells, old, size, by_class);
  if (mi_likely(!freed && !grew)) return grown;
  if (freed) tailbeam_slow(TB_REFILL_RESIZED | more, NULL, old, 0, 0);
  return grew ? tailbeam_slow(TB_RESIZED | more, grown, old, align, size) : grown;
}

TB_EXTERN void* tailbeam_realloc(void* block, size_t old, size_t align, size_t size) {
  return tb_realloc(block, old, align, size, false);
}
TB_EXTERN void* tailbeam_realloc_by_class(void* block, size_t old, size_t align, size_t size) {
  return tb_realloc(block, old, align, size, true);
}

/* The same counts for the slow path, without the operation. */
TB_EXTERN bool tailbeam_count_alloc(tb_cells* cells, size_t size, bool by_class) {
  return size > TB_LARGE || tb_take(&tb_words_of(cells, size, by_class)->left, size);
}
TB_EXTERN bool tailbeam_count_free(tb_cells* cells, size_t size, bool by_class) {
  return tb_take(&tb_words_of(cells, size, by_class)->freed, size);
}
TB_EXTERN bool tailbeam_count_realloc(tb_cells* cells, size_t old, size_t size, bool by_class) {
  return tb_regrow(cells, old, size, by_class);
}

/* mimalloc, for the slow path. */
TB_EXTERN void* tailbeam_plain(size_t size, size_t align, bool zero) { return tb_plain(size, align, zero); }
TB_EXTERN void tailbeam_plain_free(void* block) { mi_free(block); }
TB_EXTERN void* tailbeam_plain_realloc(void* block, size_t size, size_t align) {
  return align <= TB_NATURAL ? mi_realloc(block, size) : mi_realloc_aligned(block, size, align);
}
TB_EXTERN void tailbeam_watch(mi_error_fun* refused) { mi_register_error(refused, NULL); }
TB_EXTERN size_t tailbeam_held(void) {
  size_t commit = 0;
  mi_process_info(NULL, NULL, NULL, NULL, NULL, &commit, NULL, NULL);
  return commit;
}
