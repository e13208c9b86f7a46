//! Supervisors: agents that start others and restart those that fail. A restarted agent keeps its address and
//! the messages that wait for it; only the message in hand is lost. What it watched, was linked to or had
//! subscribed to is over, as after any end, and it keeps its names. A supervisor that is restarted makes its
//! children anew, when all that it had started before has ended and given up its names.
//!
//! ```
//! use tailbeam_runtime::{Agent, ChildSpec, Cx, Restart, Stop, Strategy, Supervision};
//!
//! struct Worker;
//! impl Agent for Worker {
//!     type Msg = u32;
//!     async fn on(&mut self, n: u32, _: &mut Cx<'_>) -> Result<(), Stop> {
//!         assert_ne!(n, 13, "unlucky");
//!         Ok(())
//!     }
//! }
//!
//! fn begin(cx: &mut Cx<'_>) {
//!     let plan = Supervision { strategy: Strategy::OneForAll, ..Supervision::default() };
//!     let worker = ChildSpec::new(|| Worker).named("worker").restart(Restart::Transient);
//!     cx.supervise(plan, vec![worker]).expect("room for the supervisor");
//! }
//! ```

mod policy;

pub use policy::{Backoff, Intensity, Restart, Strategy, Supervision};

use std::any::Any;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::agent::{
    Addr, Agent, AgentId, Bond, Child, Control, Cx, Down, End, Make, Notice, Placement, Reply,
    Stop, child_of, handle,
};
use crate::error::{AddError, SpawnError};
use crate::panics::{contain, drop_contained};
use crate::shard::Shard;
use policy::{Output, Tree};

/// The child number by which an agent is told that it has begun.
const SELF: u32 = u32::MAX;

/// How to make a child.
#[derive(Clone)]
pub struct ChildSpec {
    name: Option<Arc<str>>,
    restart: Restart,
    placement: Option<Placement>,
    maker: fn(AnyMake, Option<Arc<str>>) -> Arc<dyn Make>,
    make: AnyMake,
}

/// A function of the user's that makes an agent.
type AnyMake = Arc<dyn Any + Send + Sync>;

impl std::fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChildSpec").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ChildSpec {
    /// A permanent child on the supervisor's shard; `make` runs there at each start.
    pub fn new<A: Agent, F: Fn() -> A + Send + Sync + 'static>(make: F) -> Self {
        Self {
            name: None,
            restart: Restart::Permanent,
            placement: None,
            maker: |make, name| {
                let make = make.downcast::<F>().expect("made of an F below");
                Arc::new(Maker { make, name, kind: PhantomData })
            },
            make: Arc::new(make),
        }
    }

    /// The name that the child has in the runtime, found by [`Cx::find`].
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.into());
        self
    }

    /// When it is restarted.
    #[must_use]
    pub const fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// Where it lives; decided once.
    #[must_use]
    pub const fn at(mut self, placement: Placement) -> Self {
        self.placement = Some(placement);
        self
    }

    /// A supervisor as a child, with children of its own.
    #[must_use]
    pub fn supervisor(plan: Supervision, children: Vec<Self>) -> Self {
        Self::new(move || Supervisor::new(plan, children.clone()))
    }
}

/// Makes a child of type `A`.
struct Maker<A, F> {
    make: Arc<F>,
    name: Option<Arc<str>>,
    kind: PhantomData<fn() -> A>,
}

impl<A: Agent, F: Fn() -> A + Send + Sync + 'static> Make for Maker<A, F> {
    fn spawn(self: Arc<Self>, shard: &Shard, bond: Bond) -> Option<u64> {
        let agent = contain(|| (self.make)())?;
        // The drop of one that has no room is user code.
        let refused = |error| _ = drop_contained(error);
        let me = shard.spawn_agent(agent).map_err(refused).ok()?.handle();
        let name = self.name.clone();
        shard.with_kin(me, |kin| kin.child = Some(Child { bond, make: self }));
        if let Some(name) = name
            && shard.register::<A>(me, &name).is_err()
        {
            shard.send_control(me, Control::Release);
            return None;
        }
        begins(shard, me);
        Some(me)
    }

    fn refill(&self, shard: &Shard, me: u64) -> bool {
        let Some(agent) = contain(|| (self.make)()) else { return false };
        shard.refill(me, agent);
        begins(shard, me);
        true
    }
}

/// Tells an agent that it has begun, before its messages: when nothing is left of its earlier lives.
pub(crate) fn begins(shard: &Shard, me: u64) {
    if shard.awaits_earlier(me) {
        return;
    }
    let life = shard.life_of(me);
    shard.send_control(me, Control::Notice(Notice::Started { child: SELF, life, agent: None }));
}

/// What a supervisor is asked.
#[derive(Debug)]
pub enum SupervisorMsg {
    /// Who are your children?
    Children(Reply<Vec<ChildInfo>>),
    /// Start another one. It comes back when there is no place for it; otherwise it is a child from now on, as
    /// the others are.
    Add(Box<ChildSpec>, Reply<Result<(), AddError>>),
    /// End, and your children with you.
    Stop,
}

/// One child. One that does not come back is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildInfo {
    /// Its name.
    pub name: Option<Arc<str>>,
    /// Who it is; none before its first start.
    pub agent: Option<AgentId>,
    /// Whether it is meant to live now; not while it waits for a restart.
    pub up: bool,
    /// Restarts so far.
    pub restarts: u32,
}

struct Seat {
    spec: ChildSpec,
    agent: Option<AgentId>,
    /// It has a place among the supervisor's relations.
    placed: bool,
    /// It is being started, and where it lives is not known yet.
    starting: bool,
    /// It has ended before that was known: it is to be started anew then.
    again: bool,
    restarts: u32,
}

impl Seat {
    const fn new(spec: ChildSpec) -> Self {
        Self { spec, agent: None, placed: false, starting: false, again: false, restarts: 0 }
    }
}

/// The agent that supervises.
pub struct Supervisor {
    tree: Tree,
    /// By number, in the order in which they were named.
    seats: BTreeMap<u32, Seat>,
    /// The number of the next.
    next: u32,
    /// Its first children have been started: nothing is left of its earlier life.
    begun: bool,
    /// The earliest timer that is set.
    wakes_ns: Option<u64>,
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor").field("tree", &self.tree).finish_non_exhaustive()
    }
}

impl Supervisor {
    fn new(plan: Supervision, children: Vec<ChildSpec>) -> Self {
        let seats = BTreeMap::new();
        let mut this = Self { tree: Tree::new(plan), seats, next: 0, begun: false, wakes_ns: None };
        children.into_iter().for_each(|spec| _ = this.sit(spec));
        this
    }

    /// Gives a child its number.
    fn sit(&mut self, spec: ChildSpec) -> u32 {
        let child = self.next;
        self.next += 1;
        self.tree.add(child, spec.restart);
        self.seats.insert(child, Seat::new(spec));
        child
    }

    /// Starts the first children, each of which needs a place.
    fn begin(&mut self, cx: &mut Cx<'_>) {
        let (shard, me) = (cx.shard(), cx.handle());
        for seat in self.seats.values_mut().filter(|seat| !seat.placed) {
            seat.placed = shard.relate(me, |kin| kin.unborn += 1).is_ok();
            if !seat.placed {
                return shard.send_control(me, Control::GiveUp);
            }
        }
        self.begun = true;
        let all: Vec<u32> = self.seats.keys().copied().collect();
        all.into_iter().for_each(|child| self.start(child, cx));
    }

    /// Takes another child, if there is a place for it.
    fn add(&mut self, spec: Box<ChildSpec>, cx: &mut Cx<'_>) -> Result<(), AddError> {
        let (shard, me) = (cx.shard(), cx.handle());
        let max = shard.config.relations_max;
        if self.next == SELF || shard.relate(me, |kin| kin.unborn += 1).is_err() {
            return Err(AddError { spec, max });
        }
        let child = self.sit(*spec);
        self.seats.entry(child).and_modify(|seat| seat.placed = true);
        if self.begun {
            self.start(child, cx);
        }
        Ok(())
    }

    fn carry_out(&mut self, outputs: Vec<Output>, cx: &mut Cx<'_>) {
        for output in outputs {
            match output {
                Output::Halt(child) => self.tell(child, Control::Halt, cx),
                Output::Release(child) => self.release(child, cx),
                Output::Start(child) => self.start(child, cx),
                Output::GiveUp => cx.shard().send_control(cx.handle(), Control::GiveUp),
                Output::WakeAt(at_ns) if self.wakes_ns.is_some_and(|armed| armed <= at_ns) => {}
                Output::WakeAt(at_ns) => {
                    self.wakes_ns = Some(at_ns);
                    // Without a timer a restart would never come: fail, so that somebody else decides.
                    if cx.notify_at(at_ns, 0).is_err() {
                        cx.shard().send_control(cx.handle(), Control::GiveUp);
                    }
                }
            }
        }
    }

    fn tell(&self, child: u32, control: Control, cx: &Cx<'_>) {
        if let Some(agent) = self.seats.get(&child).and_then(|seat| seat.agent) {
            cx.shard().send_control(agent.handle(), control);
        }
    }

    /// A child does not come back: its place is another's.
    fn release(&mut self, child: u32, cx: &mut Cx<'_>) {
        self.tell(child, Control::Release, cx);
        let Some(seat) = self.seats.remove(&child) else { return };
        cx.shard().with_kin(cx.handle(), |kin| match seat.agent {
            Some(agent) => kin.children.retain(|own| *own != agent.handle()),
            None => kin.unborn -= usize::from(seat.placed),
        });
        // What makes it is the user's, and so is its drop.
        drop_contained(seat);
    }

    fn start(&mut self, child: u32, cx: &mut Cx<'_>) {
        let Some(seat) = self.seats.get_mut(&child) else { return };
        if seat.agent.is_some() {
            seat.restarts += 1;
            return self.tell(child, Control::Restart, cx);
        }
        if std::mem::replace(&mut seat.starting, true) {
            seat.again = true;
            return;
        }
        let (shard, me) = (cx.shard(), cx.handle());
        let life = shard.life_of(me);
        let Some(tie) = shard.tie(me) else { return };
        let bond = Bond { supervisor: me, number: child, life, tie };
        let at = seat.spec.placement.map_or(Some(shard.index), |place| shard.place(place));
        let make = (seat.spec.maker)(Arc::clone(&seat.spec.make), seat.spec.name.clone());
        let tell = move |shard: &Shard, agent: Option<u64>| {
            let agent = agent.map(AgentId::of);
            shard.send_control(me, Control::Notice(Notice::Started { child, life, agent }));
        };
        match at {
            None => tell(shard, None),
            Some(at) => {
                let job = move |there: &Shard| tell(there, make.spawn(there, bond));
                shard.send_control(handle(at, 0, 0), Control::Job(Box::new(job)));
            }
        }
    }

    fn children(&self) -> Vec<ChildInfo> {
        let info = |(&child, seat): (&u32, &Seat)| ChildInfo {
            name: seat.spec.name.clone(),
            agent: seat.agent,
            up: seat.agent.is_some() && self.tree.is_up(child),
            restarts: seat.restarts,
        };
        self.seats.iter().map(info).collect()
    }
}

impl Agent for Supervisor {
    type Msg = SupervisorMsg;
    const MAILBOX: u32 = 256;

    async fn on(&mut self, msg: SupervisorMsg, cx: &mut Cx<'_>) -> Result<(), Stop> {
        match msg {
            // An asker whose ring is full is told that there is no answer.
            SupervisorMsg::Children(reply) => drop(reply.send(cx, self.children())),
            SupervisorMsg::Add(spec, reply) => {
                let added = self.add(spec, cx);
                drop(reply.send(cx, added));
            }
            SupervisorMsg::Stop => return Err(Stop),
        }
        Ok(())
    }

    fn on_timer(&mut self, _: u64, cx: &mut Cx<'_>) -> Result<(), Stop> {
        let mut out = Vec::new();
        self.wakes_ns = None;
        self.tree.due(cx.fresh_ns(), &mut out);
        self.carry_out(out, cx);
        Ok(())
    }

    fn on_down(&mut self, down: Down, cx: &mut Cx<'_>) -> Result<(), Stop> {
        if let Some((child, _)) = child_of(&down) {
            let mut out = Vec::new();
            self.tree.ended(cx.fresh_ns(), child, down.why, &mut out);
            self.carry_out(out, cx);
        }
        Ok(())
    }

    fn on_started(&mut self, child: u32, agent: Option<AgentId>, cx: &mut Cx<'_>) {
        if child == SELF {
            return self.begin(cx);
        }
        let Some(seat) = self.seats.get_mut(&child) else {
            // From another core than the one where it was made, its end has come before this: it is no child any more.
            let release =
                |agent: AgentId| cx.shard().send_control(agent.handle(), Control::Release);
            return agent.into_iter().for_each(release);
        };
        (seat.starting, seat.agent) = (false, agent);
        let again = std::mem::take(&mut seat.again);
        let Some(agent) = agent else {
            let mut out = Vec::new();
            self.tree.ended(cx.fresh_ns(), child, End::Panicked, &mut out);
            return self.carry_out(out, cx);
        };
        cx.shard().with_kin(cx.handle(), |kin| {
            kin.unborn -= 1;
            kin.children.push(agent.handle());
        });
        if again {
            self.start(child, cx);
        }
        // It was to end before it was known where it lives.
        if self.tree.is_halting(child) {
            self.tell(child, Control::Halt, cx);
        }
    }
}

#[expect(clippy::result_large_err, reason = "the supervisor is taken apart by the only caller")]
fn spawn(
    shard: &Shard,
    plan: Supervision,
    children: Vec<ChildSpec>,
) -> Result<Addr<Supervisor>, SpawnError<Supervisor>> {
    shard.spawn_agent(Supervisor::new(plan, children))
}

impl Cx<'_> {
    /// Spawns a supervisor on this shard, which starts its children in order; it gives up when they are more than
    /// `Config::relations_max`. Allocates.
    ///
    /// # Errors
    /// [`SpawnError`] with the children when the table is full.
    pub fn supervise(
        &mut self,
        plan: Supervision,
        children: Vec<ChildSpec>,
    ) -> Result<Addr<Supervisor>, SpawnError<Vec<ChildSpec>>> {
        match spawn(self.shard(), plan, children) {
            Ok(supervisor) => {
                begins(self.shard(), supervisor.handle());
                Ok(supervisor)
            }
            Err(SpawnError { agent, max }) => {
                let agent = agent.seats.into_values().map(|seat| seat.spec).collect();
                Err(SpawnError { agent, max })
            }
        }
    }
}
