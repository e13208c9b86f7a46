//! The totals are exact: every size, reallocation and free is counted once, past every refill of a word.

use std::hint::black_box;

use tailbeam_probes::collect::heap::{TailbeamAlloc, live};

#[global_allocator]
static ALLOCATOR: TailbeamAlloc = TailbeamAlloc;

/// Live objects and bytes that `work` adds.
fn added(work: impl FnOnce()) -> (i64, i64) {
    let before = live().expect("installed");
    work();
    let after = live().expect("installed");
    let less = |a: u64, b: u64| a.cast_signed() - b.cast_signed();
    (less(after.objects, before.objects), less(after.bytes, before.bytes))
}

fn counted_over_refills() {
    // One thread frees more than 2^24 objects, which is more than a word counts.
    let churn = added(|| {
        for _ in 0..17_000_000u32 {
            drop(black_box(Box::new(7u8)));
        }
    });
    assert_eq!(churn, (0, 0));
    let sizes = [1usize, 8, 1_024, 1_025, 70_000, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 9 << 20];
    let mut held: Vec<Vec<u8>> = Vec::with_capacity(sizes.len() * 40);
    for size in sizes {
        let many = added(|| {
            for _ in 0..40 {
                held.push(black_box(Vec::with_capacity(size)));
            }
        });
        assert_eq!(many, (40, 40 * size as i64), "{size}");
    }
    let all = 40 * sizes.iter().sum::<usize>() as i64;
    assert_eq!(added(|| held.clear()), (-40 * sizes.len() as i64, -all));
}

fn counted_as_it_grows_and_shrinks() {
    let mut block: Vec<u8> = Vec::with_capacity(10);
    for to in [20usize, 3_000, 1 << 20, (1 << 20) + 1, 5 << 20, 1 << 19, 64, 3 << 20, 100] {
        let from = block.capacity();
        let grown = added(|| {
            if to > from {
                block.reserve_exact(to - block.len());
            } else {
                block.shrink_to(to);
            }
        });
        assert_eq!(block.capacity(), to);
        assert_eq!(grown, (0, to as i64 - from as i64), "{from} to {to}");
    }
    let same = added(|| {
        for _ in 0..1_000 {
            block.shrink_to(50);
            block.reserve_exact(100);
        }
    });
    assert_eq!(same, (0, 0));
}

fn counted_where_it_is_refused() {
    // The count of a refused block is taken back.
    let refused = added(|| {
        let mut block = Vec::<u8>::new();
        assert!(block.try_reserve_exact(black_box(isize::MAX as usize - 4_096)).is_err());
    });
    assert_eq!(refused, (0, 0));
}

fn counted_across_threads() {
    let blocks = added(|| {
        let threads: Vec<_> = (0..4usize)
            .map(|seed| {
                std::thread::spawn(move || {
                    (0..10_000).map(|i| vec![1u8; 1 + (i * 7 + seed) % 900]).collect::<Vec<_>>()
                })
            })
            .collect();
        // Freed here, while other threads still allocate.
        threads.into_iter().for_each(|thread| drop(thread.join().expect("no panic")));
    });
    // What std keeps of a thread that ended may be freed later, by nobody we can wait for.
    assert!(blocks.0.abs() < 32 && blocks.1.abs() < 32 << 10, "{blocks:?}");
}

/// Not the harness's: its main thread allocates when it likes, which would be counted too.
fn main() {
    counted_over_refills();
    counted_as_it_grows_and_shrinks();
    counted_where_it_is_refused();
    counted_across_threads();
}
