//! Two cores on a clock of our own: every request, turn, park and preemption is known to the ns.
//!
//! A core runs one turn after the other, looks at its inbound messages between them, and parks when there is
//! nothing. Draws are keyed by the request and the purpose, so that what is planted into one request moves no
//! draw of another.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

use tailbeam_probes::record::latency::{LatencyWindow, Stage, Stamps};

use crate::book::Book;

pub(crate) const US: u64 = 1_000;
pub(crate) const MS: u64 = 1_000_000;
/// From a message for a parked core to its first look.
const WAKE: u64 = 6 * US;
/// A turn that sends, and one that settles.
const SHORT: u64 = 150;
/// From the end of a turn to when its messages can be seen.
const FLUSH: u64 = 80;

/// What is simulated.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) agents: u32,
    pub(crate) requests: u64,
    /// Mean time between requests, ns; `exact`: each time.
    pub(crate) every_ns: u64,
    pub(crate) exact: bool,
    pub(crate) service_ns: u64,
    /// Of a thousand requests: suspended, planned, never answered.
    pub(crate) suspended: u64,
    pub(crate) planned: u64,
    pub(crate) silent: u64,
    /// Of ten thousand turns: preempted.
    pub(crate) preempted: u64,
    pub(crate) window_ns: u64,
    pub(crate) tick_ns: u64,
    pub(crate) sample_ns: u64,
    /// Exemplars of each kind that a window keeps.
    pub(crate) keep: usize,
    /// How much the second core's clock is ahead, ns.
    pub(crate) skew_ns: u64,
    /// Into these requests, so much of this stage.
    pub(crate) plants: HashMap<u64, (Stage, u64)>,
    /// The responder of these requests, where it is not drawn.
    pub(crate) responders: HashMap<u64, u32>,
    /// The recorder takes the turn for the first look, and the other way round.
    pub(crate) swapped: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            seed: 1,
            agents: 1_000,
            requests: 20_000,
            every_ns: 20 * US,
            exact: false,
            service_ns: 4 * US,
            suspended: 100,
            planned: 100,
            silent: 0,
            preempted: 20,
            window_ns: 50 * MS,
            tick_ns: 10 * MS,
            sample_ns: 200 * US,
            keep: 64,
            skew_ns: 40,
            plants: HashMap::new(),
            responders: HashMap::new(),
            swapped: false,
        }
    }
}

/// How far stamps may be out of order: the clocks' bound.
pub(crate) const BOUND: u64 = 100;

pub(crate) const HOG: u32 = 999_999;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    Send(u64),
    Take(u64),
    Resume(u64),
    Timer(u64),
    Settle(u64),
    Hog(u64, u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive(usize, Work),
    Wake(usize),
    End(usize),
    GiveUp(u64),
    Sample,
    Window,
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Request {
    pub(crate) asker: u32,
    pub(crate) responder: u32,
    pub(crate) intended_ns: u64,
    pub(crate) stamps: Stamps,
    /// True instants, by no core's clock.
    pub(crate) sent_ns: u64,
    pub(crate) taken_ns: u64,
    pub(crate) answered_ns: u64,
    resumed_from: u64,
}

#[derive(Debug, Default)]
struct Core {
    inbound: Vec<Work>,
    queue: VecDeque<(Work, u64)>,
    /// Since when it is parked.
    parked: Option<u64>,
    waking: bool,
    running: Option<(Work, u64)>,
}

pub(crate) struct World {
    plan: Plan,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    order: u64,
    open: HashMap<u64, Request>,
    cores: [Core; 2],
    pub(crate) book: Book,
    now: u64,
    next: u64,
    next_at: u64,
    samples: u64,
    settled: u64,
}

pub(crate) fn shard(agent: u32) -> usize {
    (agent % 2) as usize
}

fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// Purposes of draws.
const ARRIVAL: u64 = 1;
const ASKER: u64 = 2;
const RESPONDER: u64 = 3;
const SERVICE: u64 = 4;
const KIND: u64 = 5;
const PREEMPT: u64 = 6;
const SAMPLE: u64 = 7;

impl World {
    pub(crate) fn new(plan: Plan) -> Self {
        let book = Book::new(&plan);
        let cores = [
            Core { parked: Some(MS), ..Core::default() },
            Core { parked: Some(MS), ..Core::default() },
        ];
        let mut world = Self {
            events: BinaryHeap::new(),
            order: 0,
            open: HashMap::new(),
            cores,
            book,
            now: MS,
            next: 0,
            next_at: MS,
            samples: 0,
            settled: 0,
            plan,
        };
        world.arrive_next();
        world.at(MS + world.plan.window_ns, Event::Window);
        world.sample_next();
        world
    }

    /// Runs it to its end.
    pub(crate) fn run(plan: &Plan) -> Vec<LatencyWindow> {
        Self::book(plan).windows
    }

    pub(crate) fn book(plan: &Plan) -> Book {
        let mut world = Self::new(plan.clone());
        while world.settled < world.plan.requests {
            let Some(Reverse((at, _, event))) = world.events.pop() else { break };
            world.now = at;
            world.take(event);
        }
        // Both cores tick a last time.
        let end = world.now + MS;
        for core in 0..2 {
            if let Some(from) = world.cores[core].parked {
                world.book.parked(core, from, end);
                world.cores[core].parked = Some(end);
            }
            if let Some((_, from)) = world.cores[core].running {
                world.book.turn(core, u32::MAX, (from, end), 0);
            }
            world.book.tick(core, end);
        }
        world.book.close(end);
        world.book
    }

    fn draw(&self, key: u64, purpose: u64) -> u64 {
        mix(mix(self.plan.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (key << 8) ^ purpose))
    }

    /// Exponential with this mean.
    fn exponential(&self, key: u64, purpose: u64, mean: u64) -> u64 {
        let unit = ((self.draw(key, purpose) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        (-unit.ln() * mean as f64) as u64
    }

    fn at(&mut self, at: u64, event: Event) {
        self.order += 1;
        self.events.push(Reverse((at, self.order, event)));
    }

    fn planted(&self, request: u64, stage: Stage) -> u64 {
        match self.plan.plants.get(&request) {
            Some(&(planted, ns)) if planted == stage => ns,
            _ => 0,
        }
    }

    fn arrive_next(&mut self) {
        if self.next == self.plan.requests {
            return;
        }
        let id = self.next;
        self.next += 1;
        let gap = if self.plan.exact {
            self.plan.every_ns
        } else {
            1 + self.exponential(id, ARRIVAL, self.plan.every_ns)
        };
        self.next_at += gap;
        let agents = u64::from(self.plan.agents);
        let asker = (self.draw(id, ASKER) % agents) as u32;
        let drawn = (self.draw(id, RESPONDER) % agents) as u32;
        let responder = self.plan.responders.get(&id).copied().unwrap_or(drawn);
        let intended_ns = self.next_at;
        let mut request = Request { asker, responder, intended_ns, ..Request::default() };
        request.stamps.intended_ns = intended_ns;
        if self.kind(id) == Kind::Planned {
            request.stamps.planned_ns = 300 * US;
        }
        self.open.insert(id, request);
        let late = self.planted(id, Stage::Schedule);
        self.at(intended_ns + late, Event::Arrive(shard(asker), Work::Send(id)));
    }

    fn kind(&self, id: u64) -> Kind {
        let draw = self.draw(id, KIND) % 1_000;
        let Plan { suspended, planned, silent, .. } = self.plan;
        match draw {
            _ if draw < suspended => Kind::Suspended,
            _ if draw < suspended + planned => Kind::Planned,
            _ if draw < suspended + planned + silent => Kind::Silent,
            _ => Kind::Plain,
        }
    }

    fn sample_next(&mut self) {
        self.samples += 1;
        let gap = 1 + self.exponential(self.samples, SAMPLE, self.plan.sample_ns);
        self.at(self.now + gap, Event::Sample);
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Arrive(core, work) => self.arrive(core, work),
            Event::Wake(core) => self.wake(core),
            Event::End(core) => self.end(core),
            Event::GiveUp(id) => {
                if let Some(request) = self.open.remove(&id) {
                    self.settled += 1;
                    self.book.gave_up(&request, self.now);
                }
            }
            Event::Sample => {
                self.book.sample();
                self.sample_next();
            }
            Event::Window => {
                self.book.window(self.now);
                self.at(self.now + self.plan.window_ns, Event::Window);
            }
        }
    }

    fn arrive(&mut self, core: usize, work: Work) {
        if let Work::Send(_) = work {
            self.arrive_next();
        }
        self.cores[core].inbound.push(work);
        if self.cores[core].parked.is_some() && !self.cores[core].waking {
            self.cores[core].waking = true;
            self.at(self.now + WAKE, Event::Wake(core));
        }
    }

    fn wake(&mut self, core: usize) {
        self.cores[core].waking = false;
        if let Some(from) = self.cores[core].parked.take() {
            self.book.parked(core, from, self.now);
        }
        self.look(core);
        self.start(core, self.now);
    }

    /// An instant by the core's own clock.
    fn stamp(&self, core: usize, at: u64) -> u64 {
        at + if core == 1 { self.plan.skew_ns } else { 0 }
    }

    fn look(&mut self, core: usize) {
        let seen = self.stamp(core, self.now);
        for work in std::mem::take(&mut self.cores[core].inbound) {
            let (stage, id) = match work {
                Work::Take(id) => {
                    self.request(id).stamps.out.seen_ns = seen;
                    (Stage::RunQueue, id)
                }
                Work::Settle(id) => {
                    self.request(id).stamps.back.seen_ns = seen;
                    (Stage::ReplyRunQueue, id)
                }
                Work::Resume(id) | Work::Timer(id) | Work::Send(id) => (Stage::Hop, id),
                Work::Hog(..) => (Stage::Hop, u64::MAX),
            };
            // What is planted into a run queue is another agent's turn.
            let planted = if stage == Stage::Hop { 0 } else { self.planted(id, stage) };
            if planted > 0 {
                self.cores[core].queue.push_back((Work::Hog(planted, HOG), seen));
            }
            self.cores[core].queue.push_back((work, seen));
        }
    }

    fn request(&mut self, id: u64) -> &mut Request {
        self.open.entry(id).or_default()
    }

    fn start(&mut self, core: usize, at: u64) {
        let at = if self.book.due(core, at) { self.book.tick(core, at) } else { at };
        let Some((work, _)) = self.cores[core].queue.pop_front() else {
            self.cores[core].parked = Some(at);
            if !self.cores[core].inbound.is_empty() {
                self.cores[core].waking = true;
                self.at(at + WAKE, Event::Wake(core));
            }
            return;
        };
        let at = self.aside(core, work, at);
        self.cores[core].running = Some((work, at));
        let length = self.begin(core, work, at);
        let off = self.off(core, work, at);
        self.at(at + length + off, Event::End(core));
        self.book.begun(core, at, off);
    }

    /// A planted mailbox wait is a turn of the same agent's for another message.
    fn aside(&mut self, core: usize, work: Work, at: u64) -> u64 {
        let stamp = self.stamp(core, at);
        let (id, stage) = match work {
            Work::Take(id) => (id, Stage::Mailbox),
            Work::Settle(id) => (id, Stage::ReplyMailbox),
            _ => return at,
        };
        let ns = self.planted(id, stage);
        if ns == 0 {
            return at;
        }
        let request = self.request(id);
        let agent = if stage == Stage::Mailbox {
            request.stamps.out.aside_ns = stamp;
            request.responder
        } else {
            request.stamps.back.aside_ns = stamp;
            request.asker
        };
        self.book.turn(core, agent, (at, at + ns), 0);
        at + ns
    }

    /// How long a turn is put off its CPU.
    fn off(&mut self, core: usize, work: Work, at: u64) -> u64 {
        let (Work::Take(key) | Work::Settle(key)) = work else { return 0 };
        let key = key * 2 + u64::from(matches!(work, Work::Take(_)));
        if self.draw(key, PREEMPT) % 10_000 >= self.plan.preempted {
            return 0;
        }
        let ns = 30 * US + self.draw(key, PREEMPT) % (300 * US);
        self.book.preempted(core, at, at + ns);
        ns
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Suspended,
    Planned,
    Silent,
}

/// Turns: what happens as they begin, and as they end.
impl World {
    fn begin(&mut self, core: usize, work: Work, at: u64) -> u64 {
        let stamp = self.stamp(core, at);
        let mean = self.plan.service_ns;
        match work {
            Work::Send(_) => SHORT,
            Work::Take(id) => {
                let kind = self.kind(id);
                let service = self.service(id, mean);
                let request = self.request(id);
                request.stamps.out.turn_ns = stamp;
                request.taken_ns = at;
                self.book.legs.taken += 1;
                match kind {
                    // Half of it in the poll before it is suspended.
                    Kind::Suspended => service / 2,
                    // What does not count, as it lies in the planned delay.
                    Kind::Planned => SHORT,
                    _ => service,
                }
            }
            Work::Resume(id) => {
                let service = self.service(id, mean);
                let request = self.request(id);
                request.stamps.resume_wait_ns = at - request.resumed_from;
                service - service / 2
            }
            Work::Timer(id) => {
                self.request(id).stamps.timer_turn_ns = stamp;
                self.service(id, mean)
            }
            Work::Settle(id) => {
                self.request(id).stamps.back.turn_ns = stamp;
                self.book.legs.in_hand += 1;
                SHORT + self.planted(id, Stage::Settle)
            }
            Work::Hog(ns, _) => ns,
        }
    }

    fn service(&self, id: u64, mean: u64) -> u64 {
        200 + self.exponential(id, SERVICE, mean) + self.planted(id, Stage::Service)
    }

    fn end(&mut self, core: usize) {
        let Some((work, from)) = self.cores[core].running.take() else { return };
        let (now, off) = (self.now, self.book.off_in_turn(core));
        let agent = self.agent(work);
        self.book.turn(core, agent, (from, now), off);
        match work {
            Work::Send(id) => self.sent(core, id),
            Work::Take(id) => self.taken(core, id, now - from),
            Work::Resume(id) | Work::Timer(id) => {
                self.request(id).stamps.service_ns += now - from;
                self.answered(core, id);
            }
            Work::Settle(id) => {
                if let Some(mut request) = self.open.remove(&id) {
                    request.stamps.closed_ns = self.stamp(core, now);
                    if self.plan.swapped {
                        let leg = &mut request.stamps.out;
                        std::mem::swap(&mut leg.seen_ns, &mut leg.turn_ns);
                    }
                    self.settled += 1;
                    self.book.settled(id, &request, now);
                }
            }
            Work::Hog(..) => {}
        }
        self.look(core);
        self.start(core, now);
    }

    fn agent(&mut self, work: Work) -> u32 {
        match work {
            Work::Send(id) | Work::Settle(id) => self.request(id).asker,
            Work::Take(id) | Work::Resume(id) | Work::Timer(id) => self.request(id).responder,
            Work::Hog(_, agent) => agent,
        }
    }

    fn sent(&mut self, core: usize, id: u64) {
        let (now, stamp) = (self.now, self.stamp(core, self.now));
        // The asker's clock tells when it was to be sent, too.
        let skew = stamp - now;
        let silent = self.kind(id) == Kind::Silent;
        let request = self.request(id);
        request.stamps.intended_ns = request.intended_ns + skew;
        (request.sent_ns, request.stamps.sent_ns) = (now, stamp);
        let to = shard(request.responder);
        self.book.legs.sent += 1;
        if silent {
            self.at(now + 2 * MS, Event::GiveUp(id));
        }
        let ns = (self.planted(id, Stage::SendQueue), self.planted(id, Stage::Hop));
        let published = self.post(core, to, Work::Take(id), ns);
        self.request(id).stamps.out.published_ns = published;
    }

    /// Posts a message; when it was made visible, by this core's clock, 0 on the same core.
    fn post(&mut self, from: usize, to: usize, work: Work, (queue, hop): (u64, u64)) -> u64 {
        if from == to {
            self.at(self.now, Event::Arrive(to, work));
            return 0;
        }
        let visible = self.now + FLUSH + queue;
        self.at(visible + hop, Event::Arrive(to, work));
        self.stamp(from, visible)
    }

    fn taken(&mut self, core: usize, id: u64, length: u64) {
        if !self.open.contains_key(&id) {
            return;
        }
        match self.kind(id) {
            Kind::Plain => {
                self.request(id).stamps.service_ns += length;
                self.answered(core, id);
            }
            Kind::Suspended => {
                let ns = 40 * US + self.planted(id, Stage::Suspended);
                let ready = self.now + ns;
                let request = self.request(id);
                request.stamps.polls = 2;
                request.stamps.service_ns += length;
                request.stamps.suspended_ns = ns;
                request.resumed_from = ready;
                self.at(ready, Event::Arrive(core, Work::Resume(id)));
            }
            Kind::Planned => {
                let skew = self.stamp(core, 0);
                let request = self.request(id);
                let due = request.taken_ns + request.stamps.planned_ns;
                request.stamps.due_ns = due + skew;
                let at = due.max(self.now) + self.planted(id, Stage::Timer);
                self.at(at, Event::Arrive(core, Work::Timer(id)));
            }
            Kind::Silent => {}
        }
    }

    fn answered(&mut self, core: usize, id: u64) {
        let stamp = self.stamp(core, self.now);
        let now = self.now;
        let request = self.request(id);
        (request.answered_ns, request.stamps.answered_ns) = (now, stamp);
        let to = shard(request.asker);
        self.book.legs.answered += 1;
        let ns = (self.planted(id, Stage::ReplySendQueue), self.planted(id, Stage::ReplyHop));
        let published = self.post(core, to, Work::Settle(id), ns);
        self.request(id).stamps.back.published_ns = published;
    }
}
