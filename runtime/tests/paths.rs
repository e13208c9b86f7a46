//! Where the time of messages goes, by the clock of the machine: what a handler is told of how its message came here is
//! in order, whatever cores, timers and neighbours do.

mod common;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tailbeam_runtime::{Addr, Agent, Config, Cx, Path, Stop};

/// Letters that are sent.
const LETTERS: u64 = 100_000;
/// What the clocks of two cores and a stamp may differ by, ns: two readings of a look that something came
/// between unseen, once each.
const BOUND_NS: u64 = 5_000;

/// Both tests use all cores.
static ALONE: Mutex<()> = Mutex::new(());

#[derive(Default)]
struct Tally {
    read: AtomicU64,
    from_other_cores: AtomicU64,
    aside: AtomicU64,
    /// Sent after it was published, by the clock of the same core and by less than the bound.
    early: AtomicU64,
    wrong: AtomicU64,
}

struct Letter {
    sent_ns: u64,
    from: usize,
    bits: u64,
}

/// Passes letters on to the others at random; works, waits or yields in between.
struct Node {
    others: Vec<Addr<Self>>,
    tally: Arc<Tally>,
    last_turn_ns: u64,
}

enum Msg {
    Others(Vec<Addr<Node>>),
    Letter(Letter),
}

/// xorshift64*.
const fn next(mut bits: u64) -> u64 {
    bits ^= bits >> 12;
    bits ^= bits << 25;
    bits ^= bits >> 27;
    bits.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

impl Node {
    fn check(&mut self, letter: &Letter, cx: &mut Cx<'_>) {
        let Path { published_ns, seen_ns, aside_ns, turn_ns } = cx.path();
        let (now_ns, tally) = (cx.fresh_ns(), &self.tally);
        let taken_ns = if aside_ns == 0 { turn_ns } else { aside_ns };
        let remote = letter.from != cx.shard_index();
        let mut right = remote == (published_ns != 0) && seen_ns <= taken_ns && taken_ns <= turn_ns;
        right &=
            published_ns <= seen_ns && turn_ns <= now_ns + BOUND_NS && turn_ns >= self.last_turn_ns;
        // One of this core is seen with the next look, or has come since the last one.
        let visible_ns = if remote { published_ns } else { taken_ns };
        right &= letter.sent_ns <= visible_ns + BOUND_NS;
        self.last_turn_ns = turn_ns;
        tally.early.fetch_add(u64::from(letter.sent_ns > visible_ns), Ordering::Relaxed);
        tally.from_other_cores.fetch_add(remote.into(), Ordering::Relaxed);
        tally.aside.fetch_add(u64::from(aside_ns != 0), Ordering::Relaxed);
        tally.wrong.fetch_add(u64::from(!right), Ordering::Relaxed);
    }

    fn pass_on(&self, bits: u64, cx: &mut Cx<'_>) {
        let from = cx.shard_index();
        let first = usize::try_from(bits >> 8 & 63).expect("6 bits");
        for node in self.others.iter().cycle().skip(first).take(64) {
            let letter = Letter { sent_ns: cx.fresh_ns(), from, bits };
            if node.try_send(cx, Msg::Letter(letter)).is_ok() {
                return;
            }
        }
    }
}

impl Agent for Node {
    type Msg = Msg;

    async fn on(&mut self, msg: Msg, cx: &mut Cx<'_>) -> Result<(), Stop> {
        let letter = match msg {
            Msg::Others(others) => {
                self.others = others;
                return Ok(());
            }
            Msg::Letter(letter) => letter,
        };
        self.check(&letter, cx);
        if self.tally.read.fetch_add(1, Ordering::Relaxed) >= LETTERS {
            return Ok(());
        }
        let bits = next(letter.bits);
        let began_ns = cx.turn_ns();
        match bits >> 56 {
            0..8 => {
                let until_ns = cx.fresh_ns() + (bits & 0x3_ffff);
                cx.sleep_until(until_ns).await.map_err(|_| Stop)?;
                let path = cx.path();
                // A sleep that is over before it begins suspends nobody: the turn is still the message's.
                let slept = path.turn_ns != began_ns;
                let right = !slept || (path.seen_ns >= until_ns && path.turn_ns >= path.seen_ns);
                self.tally.wrong.fetch_add(u64::from(!right), Ordering::Relaxed);
            }
            8..24 => {
                cx.yield_now().await;
                let path = cx.path();
                let right = path.seen_ns >= began_ns && path.published_ns == 0;
                self.tally.wrong.fetch_add(u64::from(!right), Ordering::Relaxed);
            }
            24..28 => {
                let until_ns = cx.fresh_ns() + (bits & 0xffff);
                while cx.fresh_ns() < until_ns {}
            }
            _ => {
                // In this turn, and not beyond the clock by more than stamps may be.
                let (stamp_ns, now_ns) = (cx.stamp_ns(), cx.fresh_ns());
                let right = stamp_ns >= began_ns && stamp_ns <= now_ns + 1_000;
                self.tally.wrong.fetch_add(u64::from(!right), Ordering::Relaxed);
            }
        }
        self.pass_on(bits, cx);
        Ok(())
    }
}

/// Lets letters go round until `LETTERS` were read; `switched`: one core's stamps go off and on meanwhile.
fn go_round(turn_stamps: bool, switched: bool) -> Option<Arc<Tally>> {
    let config = Config { turn_stamps, drain_ns: 10_000_000, ..Config::default() };
    let runtime = common::start(config)?;
    let (tally, shards) = (Arc::new(Tally::default()), runtime.shards());
    let nodes: Vec<Addr<Node>> = (0..64)
        .map(|at| {
            let tally = Arc::clone(&tally);
            let make = move || Node { others: Vec::new(), tally, last_turn_ns: 0 };
            runtime.spawn_on(at % shards, make).expect("room")
        })
        .collect();
    for (at, &node) in nodes.iter().enumerate() {
        let others = nodes.clone();
        let tell = move |cx: &mut Cx<'_>| node.try_send(cx, Msg::Others(others)).is_ok();
        assert!(runtime.run_on(at % shards, tell).expect("lives"));
    }
    for (at, &node) in nodes.iter().enumerate() {
        let begin = move |cx: &mut Cx<'_>| {
            let (sent_ns, from) = (cx.fresh_ns(), cx.shard_index());
            let letter = Letter { sent_ns, from, bits: at as u64 + 1 };
            node.try_send(cx, Msg::Letter(letter)).is_ok()
        };
        assert!(runtime.run_on(0, begin).expect("lives"));
    }
    for round in 0.. {
        if tally.read.load(Ordering::Relaxed) >= LETTERS {
            break;
        }
        std::thread::park_timeout(Duration::from_millis(1));
        if switched {
            let (shard, on) = (round / 2 % shards, round % 2 == 1);
            runtime.run_on(shard, move |cx| cx.set_turn_stamps(on)).expect("lives");
        }
    }
    drop(runtime);
    Some(tally)
}

#[test]
fn a_letter_is_sent_published_seen_set_aside_and_taken_in_this_order() {
    let _alone = ALONE.lock();
    let Some(tally) = go_round(true, false) else { return };
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!(count(&tally.wrong), 0);
    assert!(count(&tally.aside) > LETTERS / 1_000, "{}", count(&tally.aside));
    let few = LETTERS / 100;
    assert!(count(&tally.early) < few, "{} within the bound only", count(&tally.early));
    if std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1) {
        assert!(count(&tally.from_other_cores) > LETTERS / 10);
    }
}

/// A reader that counts publications and a sender that does not date them went round for ever.
#[test]
fn letters_go_round_while_stamps_go_off_and_on() {
    let _alone = ALONE.lock();
    for turn_stamps in [true, false] {
        let Some(tally) = go_round(turn_stamps, true) else { return };
        assert!(tally.read.load(Ordering::Relaxed) >= LETTERS);
    }
}
