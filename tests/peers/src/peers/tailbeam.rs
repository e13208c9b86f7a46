//! Agents on our runtime.

use std::sync::OnceLock;

use tailbeam_runtime::{Addr, Agent, Config, Cores, Cx, NoObserver, Runtime, Stop};

use crate::Args;
use crate::sheet::{Dice, Sheet, TIMED};

static ADDRESSES: OnceLock<Vec<Addr<Asker>>> = OnceLock::new();

struct Asker {
    sheet: &'static Sheet,
    me: u32,
    agents: u32,
    asked: u32,
    sent_ns: u64,
    dice: Dice,
}

enum Msg {
    Start,
    Ask(u32),
    Answer,
}

impl Asker {
    fn ask(&mut self, cx: &mut Cx<'_>) -> Result<(), Stop> {
        let to = self.dice.other(self.me, self.agents);
        if self.asked.is_multiple_of(TIMED) {
            self.sent_ns = self.sheet.now_ns();
        }
        self.send(to, Msg::Ask(self.me), cx)
    }

    fn send(&self, to: u32, msg: Msg, cx: &mut Cx<'_>) -> Result<(), Stop> {
        let addresses = ADDRESSES.get().ok_or(Stop)?;
        addresses[to as usize].try_send(cx, msg).map_err(|_| {
            self.sheet.refused();
            Stop
        })
    }
}

impl Agent for Asker {
    type Msg = Msg;
    const MAILBOX: u32 = 64;

    async fn on(&mut self, msg: Msg, cx: &mut Cx<'_>) -> Result<(), Stop> {
        match msg {
            Msg::Start => self.ask(cx),
            Msg::Ask(from) => self.send(from, Msg::Answer, cx),
            Msg::Answer => {
                if self.asked.is_multiple_of(TIMED) {
                    self.sheet.answered(self.sent_ns);
                }
                self.asked += 1;
                self.sheet.completed(self.me, self.asked);
                if self.sheet.is_open() { self.ask(cx) } else { Ok(()) }
            }
        }
    }
}

/// Starts the agents; agent `i` lives on core `i % 2`. The runtime lives as long as the process.
pub(crate) fn run(args: &Args, cores: [usize; 2], sheet: &'static Sheet) -> Result<(), String> {
    let agents = args.agents;
    let config = Config {
        cores: Cores::List(cores.to_vec()),
        agents_max: agents,
        peer_ring_slots: (2 * agents).next_power_of_two().clamp(4_096, 1 << 20),
        ..Config::default()
    };
    let runtime = Runtime::start(config, |_| NoObserver).map_err(|error| error.to_string())?;
    let mut per_core = Vec::new();
    for core in 0..2 {
        let spawn = move |cx: &mut Cx<'_>| -> Vec<Addr<Asker>> {
            (0..agents)
                .filter(|me| *me as usize % 2 == core)
                .filter_map(|me| {
                    let dice = Dice::new(me);
                    cx.spawn(Asker { sheet, me, agents, asked: 0, sent_ns: 0, dice }).ok()
                })
                .collect()
        };
        per_core.push(runtime.run_on(core, spawn).map_err(|error| error.to_string())?);
    }
    let addresses = (0..agents as usize).map(|me| per_core[me % 2][me / 2]).collect();
    let _ = ADDRESSES.set(addresses);
    for core in 0..2 {
        let mine = per_core[core].clone();
        let refused = runtime
            .run_on(core, move |cx| {
                mine.iter().filter(|agent| agent.try_send(cx, Msg::Start).is_err()).count()
            })
            .map_err(|error| error.to_string())?;
        if refused > 0 {
            return Err(format!("{refused} agents could not start"));
        }
    }
    std::mem::forget(runtime);
    Ok(())
}
