//! What the checks of an elicitation cost, in ns per operation of one core:
//! `cargo run --release -p tailbeam-harness --example elicitation_cost`.
//!
//! Each line is the smallest of 7 means over a batch: the least disturbed one. No queue, no disk, no other
//! core is in it.
#![expect(clippy::print_stdout, reason = "an example shows its result")]
#![expect(clippy::cast_possible_truncation, reason = "a batch is below 2^32")]

use std::hint::black_box;
use std::sync::Arc;

use tailbeam_harness::protocol::elicitation::{
    Ask, Desk, Digest, Id, KeyRing, Message, Nonce, Notice, Owner, OwnerConfig, Profile, RunSecret,
    Signer, record, wire,
};
use tailbeam_runtime::clock;

const BATCH: usize = 20_000;
const SCHEMA: &[u8] = br#"{"type":"object"}"#;

fn best(what: &str, mut run: impl FnMut(usize)) {
    let mean = (0..7).map(|_| {
        let began = clock::monotonic_ns();
        (0..BATCH).for_each(&mut run);
        (clock::monotonic_ns() - began) as f64 / BATCH as f64
    });
    println!("{what:<44} {:>8.0} ns", mean.fold(f64::INFINITY, f64::min));
}

fn ask(now_ns: u64, text: usize) -> Ask {
    let message = Arc::from(vec![b'x'; text]);
    Ask { to: 2, now_ns, timeout_ns: 10_000_000_000, message, schema: Arc::from(SCHEMA) }
}

fn main() {
    let keys = KeyRing::new(&RunSecret::new([1; 32]), 1);
    let (asker, addressee) = (Signer::new(1, &keys), Signer::new(2, &keys));
    let (id, challenge) = (Id::new(0, 1, 2), Nonce([3; 32]));
    let data: Arc<[u8]> = Arc::from(&br#"{"response":"From agent_2"}"#[..]);
    best("key of an agent, derived", |n| {
        black_box(keys.agent(n as u32));
    });
    best("nonce and its digest", |n| {
        black_box(Digest::of(n as u32, &challenge));
    });
    for text in [22, 1 << 10, 16 << 10] {
        let sample = ask(1, text);
        best(&format!("request of {text} bytes, nonce and signature"), |n| {
            black_box(asker.create(n as u64, sample.clone()));
        });
    }
    best("answer of 27 bytes, signature", |_| {
        black_box(addressee.accept(id, challenge, 1, Arc::clone(&data)));
    });
    let answer = addressee.accept(id, challenge, 1, Arc::clone(&data));
    let mut bytes = Vec::new();
    wire::encode(&answer, &mut bytes);
    let mut desk = Desk::new(Profile::load(1, 1), wire::Bounds::default(), 10, 10);
    best("desk: an answer read and admitted", |n| {
        black_box(desk.read(1_000_000_000 * n as u64, 2, &bytes).is_ok());
    });
    whole(&keys, &asker, &addressee, &data);
}

/// A request and its answer through the owner, with the encoding of both events.
fn whole(keys: &KeyRing, asker: &Signer, addressee: &Signer, data: &Arc<[u8]>) {
    let mut owner = Owner::new(OwnerConfig::default(), keys.clone());
    let (mut k, mut payload) = (0, Vec::new());
    let mut spent = [0_u64; 4];
    let mut best = [u64::MAX; 4];
    for _ in 0..7 {
        spent.fill(0);
        for _ in 0..BATCH {
            k += 1;
            let now = 1_000_000_000 + k * 1_000_000;
            let created = asker.create(k, ask(now, 22));
            let t0 = clock::monotonic_ns();
            let output = owner.handle(now, &created, 1);
            let t1 = clock::monotonic_ns();
            let Some(Notice::Asked { id, challenge, .. }) = output.effects.notice else {
                println!("a request was refused: {:?}", output.outcome);
                return;
            };
            let answer: Message = addressee.accept(id, challenge, now, Arc::clone(data));
            let t2 = clock::monotonic_ns();
            let answered = owner.handle(now, &answer, 1);
            let t3 = clock::monotonic_ns();
            for event in output.effects.event.iter().chain(&answered.effects.event) {
                payload.clear();
                black_box(record::encode(event, &mut payload));
            }
            let t4 = clock::monotonic_ns();
            for (sum, took) in
                spent.iter_mut().zip([t1 - t0, t3 - t2, t4 - t3, t1 - t0 + t3 - t2 + t4 - t3])
            {
                *sum += took;
            }
        }
        for (least, sum) in best.iter_mut().zip(spent) {
            *least = (*least).min(sum / BATCH as u64);
        }
    }
    let names = [
        "owner: request",
        "owner: answer, schema and all",
        "both events encoded",
        "owner: all of an elicitation",
    ];
    for (name, ns) in names.iter().zip(best) {
        println!("{name:<44} {ns:>8} ns (two clock reads of about 20 ns each in it)");
    }
}
