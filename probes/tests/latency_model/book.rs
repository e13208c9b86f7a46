//! What a recorder would write down of the world.

use std::collections::HashMap;

use tailbeam_probes::analyse::latency::conserve::Counted;
use tailbeam_probes::analyse::latency::{
    Reservoir, SpaceSaving, StageTable, TopSlow, stages, sum_ns,
};
use tailbeam_probes::record::latency::{
    CoreTick, Count, CounterRecord, Exemplar, LatencyWindow, LegSum, LongTurn, Off, ResponderSums,
    Stage, StageNs, Sums, TopAgent, Why,
};

use crate::world::{BOUND, MS, Plan, Request, US, shard};

/// Messages that passed each end of a leg.
#[derive(Debug, Default)]
pub(crate) struct Legs {
    pub(crate) sent: u64,
    pub(crate) taken: u64,
    pub(crate) answered: u64,
    pub(crate) in_hand: u64,
    /// Of those that were given up: they are in no leg any more.
    given_up: u64,
}

/// One core's open window and tick.
struct Pages {
    window: LatencyWindow,
    table: StageTable,
    responders: [ResponderSums; 2],
    service: SpaceSaving<u32>,
    uniform: Reservoir<Exemplar>,
    late: Reservoir<Exemplar>,
    top: TopSlow<Exemplar>,
    tick: CoreTick,
    off_in_turn: u64,
}

pub(crate) struct Book {
    plan: Plan,
    pages: [Pages; 2],
    pub(crate) legs: Legs,
    pub(crate) windows: Vec<LatencyWindow>,
    pub(crate) counted: Vec<Counted>,
    /// Stages of each request, when few.
    pub(crate) every: HashMap<u64, StageNs>,
    counting: Counted,
    number: u32,
}

fn pages(plan: &Plan, shard: u16) -> Pages {
    let seed = plan.seed * 2 + u64::from(shard);
    Pages {
        window: LatencyWindow { shard, from_ns: MS, ..LatencyWindow::default() },
        table: StageTable::new(),
        responders: [0, 1].map(|shard| ResponderSums { shard, ..ResponderSums::default() }),
        service: SpaceSaving::new(32),
        uniform: Reservoir::new(plan.keep, seed),
        late: Reservoir::new(plan.keep, seed ^ 0xFF),
        top: TopSlow::new(8),
        tick: CoreTick { from_ns: MS, ..fresh() },
        off_in_turn: 0,
    }
}

fn fresh() -> CoreTick {
    let zero = Some(0);
    CoreTick {
        preempted_ns: zero,
        blocked_ns: zero,
        run_ns: zero,
        wait_ns: zero,
        ..CoreTick::default()
    }
}

fn add(to: &mut Option<u64>, ns: u64) {
    *to = to.map(|sum| sum + ns);
}

impl Book {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            plan: plan.clone(),
            pages: [pages(plan, 0), pages(plan, 1)],
            legs: Legs::default(),
            windows: Vec::new(),
            counted: Vec::new(),
            every: HashMap::new(),
            counting: Counted::default(),
            number: 0,
        }
    }

    pub(crate) fn sample(&mut self) {
        let legs = &self.legs;
        let window = &mut self.pages[0].window;
        let sent = legs.sent - legs.given_up;
        let taken = legs.taken - legs.given_up;
        for (sum, now) in window.occupancy.iter_mut().zip([
            sent.saturating_sub(taken),
            taken.saturating_sub(legs.answered),
            legs.answered - legs.in_hand,
        ]) {
            *sum += now;
        }
        window.occupancy_samples += 1;
    }

    pub(crate) fn begun(&mut self, core: usize, _at: u64, off: u64) {
        self.pages[core].off_in_turn = off;
    }

    pub(crate) fn off_in_turn(&mut self, core: usize) -> u64 {
        std::mem::take(&mut self.pages[core].off_in_turn)
    }

    pub(crate) fn turn(&mut self, core: usize, agent: u32, (from, to): (u64, u64), off: u64) {
        let tick = &mut self.pages[core].tick;
        tick.turns_ns += to - from;
        tick.turns += 1;
        add(&mut tick.run_ns, to - from - off);
        if to - from >= 100 * US {
            let turn = LongTurn { agent, from_ns: from, len_ns: to - from };
            self.pages[core].window.long_turns.push(turn);
        }
    }

    pub(crate) fn preempted(&mut self, core: usize, from: u64, to: u64) {
        let page = &mut self.pages[core];
        add(&mut page.tick.preempted_ns, to - from);
        add(&mut page.tick.wait_ns, to - from);
        page.window.off.push(Off { from_ns: from, to_ns: to, preempted: true });
    }

    pub(crate) fn parked(&mut self, core: usize, from: u64, to: u64) {
        let page = &mut self.pages[core];
        page.tick.parked_ns += to - from;
        add(&mut page.tick.blocked_ns, to - from);
        // After it was woken it was ready for a while.
        add(&mut page.tick.wait_ns, (to - from).min(2 * US));
        if to - from >= 20 * US {
            page.window.off.push(Off { from_ns: from, to_ns: to, preempted: false });
        }
    }

    pub(crate) fn due(&self, core: usize, at: u64) -> bool {
        at >= self.pages[core].tick.from_ns + self.plan.tick_ns
    }

    /// A tick takes 1 us; the instant after it.
    pub(crate) fn tick(&mut self, core: usize, at: u64) -> u64 {
        let page = &mut self.pages[core];
        let end = at + US;
        let mut tick = std::mem::replace(&mut page.tick, CoreTick { from_ns: end, ..fresh() });
        tick.to_ns = end;
        tick.tick_ns = US;
        add(&mut tick.run_ns, US);
        let count = Count::Exact(tick.run_ns.unwrap_or(0));
        tick.counters = vec![CounterRecord { name: "task-clock".to_owned(), count }];
        page.window.ticks.push(tick);
        end
    }

    fn count(&mut self, system_ns: u64) {
        self.counting.requests += 1;
        self.counting.system_ns += u128::from(system_ns);
    }

    pub(crate) fn settled(&mut self, id: u64, request: &Request, now: u64) {
        let (asker, responder) = (shard(request.asker), shard(request.responder));
        // By the asker's own clock reads, and by no stamp of another's.
        let system_ns = now - request.intended_ns - request.stamps.planned_ns;
        self.count(system_ns);
        let page = &mut self.pages[asker];
        let (sent, taken) = (request.sent_ns, request.taken_ns);
        // In hand as the asker's turn begins; its length is what closing takes beyond.
        let in_hand = now - (request.stamps.closed_ns - request.stamps.back.turn_ns);
        let times = [taken - sent, request.answered_ns - taken, in_hand - request.answered_ns];
        for (leg, ns) in page.window.legs.iter_mut().zip(times) {
            *leg = LegSum { count: leg.count + 1, ns: leg.ns + ns };
        }
        let staged = stages(&request.stamps, BOUND);
        page.window.clamped += u64::from(staged.clamped);
        if staged.disordered.is_some() {
            page.window.disordered += 1;
            return;
        }
        if self.plan.requests <= 1_000 {
            self.every.insert(id, staged.stages);
        }
        page.table.add(system_ns, &staged.stages);
        page.responders[responder].all.add(system_ns, &staged.stages);
        page.service.add(request.responder, request.stamps.service_ns);
        let whole = |why| Exemplar {
            why,
            asker: request.asker,
            responder: request.responder,
            asker_shard: u16::try_from(asker).unwrap(),
            responder_shard: u16::try_from(responder).unwrap(),
            stamps: request.stamps,
            counts: None,
        };
        page.uniform.offer(|| whole(Why::Uniform));
        page.top.offer(system_ns, || whole(Why::Top));
        if page.window.late_ns.is_some_and(|late| system_ns >= late) {
            page.late.offer(|| whole(Why::Late));
            page.responders[responder].late.add(system_ns, &staged.stages);
        }
    }

    pub(crate) fn gave_up(&mut self, request: &Request, now: u64) {
        let system_ns = now - request.intended_ns;
        self.count(system_ns);
        let (asker, responder) = (shard(request.asker), shard(request.responder));
        let mut stamps = request.stamps;
        stamps.closed_ns = stamps.sent_ns + (now - request.sent_ns);
        let staged = stages(&stamps, BOUND);
        assert_eq!(sum_ns(&staged.stages), system_ns);
        let page = &mut self.pages[asker];
        page.table.add(system_ns, &staged.stages);
        page.responders[responder].all.add(system_ns, &staged.stages);
        let unknown = &mut page.window.legs_unknown;
        *unknown = LegSum { count: unknown.count + 1, ns: unknown.ns + now - request.sent_ns };
        self.legs.given_up += 1;
    }

    /// Ends the window of both cores.
    pub(crate) fn window(&mut self, at: u64) {
        for page in &mut self.pages {
            let shard = page.window.shard;
            let late_ns = page.table.exceeded_by(10);
            let next = LatencyWindow {
                window: self.number + 1,
                shard,
                from_ns: at,
                late_ns,
                ..LatencyWindow::default()
            };
            let mut window = std::mem::replace(&mut page.window, next);
            window.window = self.number;
            window.to_ns = at;
            window.buckets = page.table.take();
            let empty = |shard| ResponderSums { shard, ..ResponderSums::default() };
            let responders = std::mem::replace(&mut page.responders, [empty(0), empty(1)]);
            let held = |r: &ResponderSums| r.all != Sums::default();
            window.responders = responders.into_iter().filter(held).collect();
            window.late_left_out = page.late.left_out();
            window.exemplars.extend(page.uniform.kept());
            window.exemplars.extend(page.late.kept());
            window.exemplars.extend(page.top.kept().iter().map(|(_, exemplar)| *exemplar));
            let entry = |heavy: tailbeam_probes::analyse::latency::Heavy<u32>| TopAgent {
                agent: heavy.key,
                weight: heavy.weight,
                error: heavy.error,
                count: heavy.count,
            };
            window.top_service = page.service.heaviest().into_iter().map(entry).collect();
            page.service.clear();
            page.uniform.clear();
            page.late.clear();
            page.top.clear();
            self.windows.push(window);
        }
        self.counted.push(Counted { window: self.number, ..self.counting });
        self.counting = Counted::default();
        self.number += 1;
    }

    pub(crate) fn close(&mut self, at: u64) {
        self.window(at);
    }
}

/// What a faulty recorder, or a faulty sum, would have made of the windows.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    Dropped(Stage),
    Doubled(Stage),
    Exchanged(Stage, Stage),
    LostRing,
    SilentRing,
    WindowEmptied(u32),
    WindowGone(u32),
    ParkingDropped,
    TurnsDropped,
    TicksDropped,
    /// No fault: nothing but a count while stages were off.
    Off(u32),
}

fn each(windows: &mut [LatencyWindow], mut change: impl FnMut(&mut StageNs)) {
    for window in windows {
        window.buckets.iter_mut().for_each(|bucket| change(&mut bucket.sums.stages));
        window.responders.iter_mut().for_each(|responder| change(&mut responder.all.stages));
    }
}

impl Fault {
    pub(crate) fn apply(self, windows: &mut Vec<LatencyWindow>) {
        let ticks = |windows: &mut Vec<LatencyWindow>, change: fn(&mut CoreTick)| {
            windows.iter_mut().flat_map(|w| &mut w.ticks).for_each(change);
        };
        match self {
            Self::Dropped(stage) => each(windows, |stages| stages[stage.index()] = 0),
            Self::Doubled(stage) => each(windows, |stages| stages[stage.index()] *= 2),
            Self::Exchanged(a, b) => each(windows, |stages| stages.swap(a.index(), b.index())),
            Self::LostRing => ticks(windows, |tick| {
                (tick.preempted_ns, tick.blocked_ns, tick.lost) = (Some(0), Some(0), 40);
            }),
            Self::SilentRing => ticks(windows, |tick| {
                (tick.preempted_ns, tick.blocked_ns) = (Some(0), Some(0));
            }),
            Self::WindowEmptied(number) => {
                for window in windows.iter_mut().filter(|window| window.window == number) {
                    window.buckets.clear();
                    window.responders.clear();
                    window.legs = [LegSum::default(); 3];
                }
            }
            Self::Off(number) => {
                for window in windows.iter_mut().filter(|window| window.window == number) {
                    let off =
                        window.buckets.drain(..).fold(LegSum::default(), |off, bucket| LegSum {
                            count: off.count + bucket.sums.count,
                            ns: off.ns + bucket.sums.system_ns,
                        });
                    window.unstaged = off;
                    window.legs = [LegSum::default(); 3];
                    window.responders.clear();
                    window.exemplars.clear();
                    window.ticks.clear();
                }
            }
            Self::WindowGone(number) => windows.retain(|w| w.window != number || w.shard == 1),
            Self::ParkingDropped => ticks(windows, |tick| tick.parked_ns = 0),
            Self::TurnsDropped => ticks(windows, |tick| tick.turns_ns = 0),
            Self::TicksDropped => windows.iter_mut().filter(|w| w.window == 3).for_each(|w| {
                w.ticks.clear();
            }),
        }
    }
}
