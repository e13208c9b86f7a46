//! The two programs that every allocator runs, and how a run is timed.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use cpu_time::ProcessTime;
use serde_json::{Map, Value, json};

/// Runs `PROGRAM SIZE CORE` from the command line, and prints CPU ns, wall ns and a checksum of it.
/// `started` runs before the clock.
pub fn main_of<T>(started: impl FnOnce() -> T) {
    let args: Vec<String> = std::env::args().collect();
    let number = |at: usize| args.get(at).and_then(|a| a.parse::<usize>().ok()).unwrap_or(0);
    let (size, core) = (number(2), number(3));
    core_affinity::set_for_current(core_affinity::CoreId { id: core });
    let session = started();
    // Warm: pages, tables and caches are there before the clock starts.
    let program = args.get(1).map(String::as_str);
    let work = |size| match program {
        Some("json") => json_and_maps(size),
        _ => churn(size),
    };
    black_box(work(size / 10 + 1));
    // Not our clock: its vDSO look-up does not survive massif.
    let (cpu, wall) = (ProcessTime::now(), Instant::now());
    let sum = work(size);
    let (cpu, wall) = (cpu.elapsed().as_nanos(), wall.elapsed().as_nanos());
    println!("{cpu} {wall} {sum}");
    drop(session);
}

fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Parses and prints JSON documents, and keeps what it found in ordered maps that turn over.
pub fn json_and_maps(documents: usize) -> u64 {
    let (mut state, mut sum) = (0x1234_5678_9ABC_DEF1, 0u64);
    let mut index: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for document in 0..documents {
        let text = render(&mut state);
        let value: Value = serde_json::from_str(&text).expect("valid");
        sum = sum.wrapping_add(serde_json::to_string(&value).expect("prints").len() as u64);
        for user in value["users"].as_array().expect("an array") {
            let key = format!("{}-{}", user["name"].as_str().expect("text"), document % 4_096);
            index.entry(key).or_default().push(user["id"].as_u64().expect("a number"));
        }
        while index.len() > 20_000 {
            sum = sum.wrapping_add(index.pop_first().map_or(0, |(_, ids)| ids.len() as u64));
        }
    }
    sum.wrapping_add(index.len() as u64)
}

fn render(state: &mut u64) -> String {
    let users: Vec<Value> = (0..12)
        .map(|_| {
            let id = next(state) % 1_000_000;
            let tags: Vec<Value> =
                (0..next(state) % 6).map(|tag| format!("tag-{tag}-{}", id % 97).into()).collect();
            let mut notes = Map::new();
            for note in 0..next(state) % 4 {
                notes.insert(format!("note {note}"), "x".repeat((id % 60) as usize).into());
            }
            json!({"id": id, "name": format!("user{}", id % 5_000), "score": id as f64 / 7.0,
                "active": id % 2 == 0, "tags": tags, "notes": notes})
        })
        .collect();
    json!({"users": users, "page": next(state) % 100}).to_string()
}

/// The allocation loop: 4,096 slots, a random one is freed and filled with 16 to 1,023 bytes, whose
/// first and last byte are written.
pub fn churn(operations: usize) -> u64 {
    let (mut state, mut sum) = (0x9E37_79B9_7F4A_7C15, 0u64);
    let mut slots: Vec<Vec<u8>> = (0..4_096).map(|_| Vec::new()).collect();
    for _ in 0..operations {
        let draw = next(&mut state);
        let (slot, size) = ((draw % 4_096) as usize, 16 + (draw >> 32) as usize % 1_008);
        let mut block: Vec<u8> = Vec::with_capacity(size);
        block.push(draw as u8);
        block.spare_capacity_mut()[size - 2].write(1);
        sum = sum.wrapping_add(u64::from(block[0]));
        slots[slot] = black_box(block);
    }
    sum
}
