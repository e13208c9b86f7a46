//! The counting allocator balances, across threads too.

use std::sync::mpsc;
use std::thread;

use tailbeam_probes::collect::heap::{TailbeamAlloc, live};

#[global_allocator]
static ALLOCATOR: TailbeamAlloc = TailbeamAlloc;

#[test]
fn live_bytes_follow_a_known_allocation_and_cross_thread_frees() {
    let before = live().expect("installed").bytes;
    let block = vec![1u8; 10 << 20];
    let grown = live().expect("installed").bytes - before;
    assert!((10 << 20..11 << 20).contains(&grown), "{grown}");
    let (send, receive) = mpsc::channel::<Vec<u8>>();
    let other = thread::spawn(move || receive.into_iter().map(|b| b.len()).sum::<usize>());
    send.send(block).expect("the thread lives");
    drop(send);
    assert_eq!(other.join().expect("no panic"), 10 << 20);
    let threads: Vec<_> = (0..8)
        .map(|seed| {
            thread::spawn(move || {
                let mut held: Vec<Vec<u8>> = Vec::new();
                for i in 0..20_000usize {
                    held.push(vec![0; (i * 7 + seed) % 900]);
                    if held.len() > 50 {
                        held.swap_remove(i % 50);
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().expect("no panic"));
    let after = live().expect("installed").bytes;
    assert!(after.abs_diff(before) < 1 << 20, "{before} to {after}");
}
