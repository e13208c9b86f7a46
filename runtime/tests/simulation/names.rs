//! The operations on names, on agents that are spawned elsewhere, and on accounts; and what must come of them.

use tailbeam_runtime::{Cx, Placement, RelationError};

use crate::bonds::has_address;
use crate::node::{Core, Large, Low, Small, Target};
use crate::world::{Planted, World, world};

/// Few, so that they are taken now and then.
const NAMES: [&str; 3] = ["x", "y", "z"];

/// Who has which name, by node.
#[derive(Default)]
pub(crate) struct Names([Option<usize>; NAMES.len()]);

impl World {
    /// Whether the owner of a name has it still: known unless it is supervised and has ended.
    fn owner(&self, name: usize) -> Option<(usize, Option<bool>)> {
        let owner = self.names.0[name]?;
        let node = &self.nodes[owner];
        let ended = node.supervisor.is_none().then_some(false);
        Some((owner, if node.alive { Some(true) } else { ended }))
    }
}

pub(crate) fn register(core: &Core, cx: &mut Cx<'_>) {
    let Some(target) = world(|w| w.nodes[core.id].to()) else { return };
    let name = world(|w| w.rng.index(NAMES.len()));
    let registered = match target {
        Target::Small(_) => cx.register::<Small>(NAMES[name]),
        Target::Large(_) => cx.register::<Large>(NAMES[name]),
        Target::Low(_) => cx.register::<Low>(NAMES[name]),
    };
    world(|w| {
        let planted = w.is_planted(Planted::NameTwice);
        let owner = w.owner(name);
        match registered {
            Ok(()) => {
                w.tally.names += 1;
                if planted || owner.is_some_and(|(_, has)| has == Some(true)) {
                    w.wrong(|| format!("{} has got the name of {owner:?}", core.id));
                }
                w.names.0[name] = Some(core.id);
            }
            Err(RelationError::Taken { by }) => {
                let lives = |&(owner, has): &(usize, Option<bool>)| {
                    has != Some(false) && has_address(&w.nodes[owner], by)
                };
                if owner.as_ref().is_none_or(|owner| !lives(owner)) {
                    w.wrong(|| format!("{} is refused for {by}, and {owner:?} has it", core.id));
                }
            }
            Err(RelationError::Full { .. }) if w.tight => {}
            Err(error) => w.wrong(|| format!("{} cannot have a name: {error}", core.id)),
        }
    });
}

pub(crate) fn find(cx: &mut Cx<'_>) {
    let name = world(|w| w.rng.index(NAMES.len()));
    let text = NAMES[name];
    let found = [
        cx.find::<Small>(text).map(|addr| addr.id()),
        cx.find::<Large>(text).map(|addr| addr.id()),
        cx.find::<Low>(text).map(|addr| addr.id()),
    ];
    world(|w| {
        let owner = w.owner(name);
        let mut hits = found.iter().flatten();
        let (first, second) = (hits.next(), hits.next());
        let fits = match (owner, first) {
            (_, Some(_)) if second.is_some() => false,
            (Some((owner, has)), Some(&id)) => {
                has != Some(false) && has_address(&w.nodes[owner], id)
            }
            (None, Some(_)) => false,
            (owner, None) => owner.is_none_or(|(_, has)| has != Some(true)),
        };
        w.tally.names_found += u64::from(first.is_some());
        if !fits && !w.stopping {
            w.wrong(|| format!("{text} is that of {owner:?}, and {found:?} was found"));
        }
    });
}

/// Spawns a node on some shard, which may not exist, from a future of its own.
pub(crate) fn spawn_at(cx: &mut Cx<'_>) {
    if world(|w| w.living.len() >= w.nodes_wanted) {
        return;
    }
    let id = world(|w| w.new_node(cx.shard_index(), None));
    let shard = world(|w| w.rng.index(9));
    let placement = match world(|w| w.rng.below(3)) {
        0 => Placement::RoundRobin,
        1 => Placement::LeastAgents,
        _ => Placement::Shard(shard),
    };
    let run = async move |cx: &mut Cx<'_>| {
        let spawning = cx.spawn_at(placement, move || {
            let core = Core::begin(id);
            world(|w| {
                // Nobody knows it yet: it may be handed back.
                let node = &mut w.nodes[id];
                (node.started, node.has_cause, node.grenade) = (false, true, false);
            });
            Small::new(core)
        });
        world(|w| w.tally.spawns_at += 1);
        let spawned = spawning.await;
        world(|w| {
            let node = &mut w.nodes[id];
            match spawned {
                Some(at) => {
                    (node.started, node.has_cause) = (true, false);
                    w.tally.nodes_elsewhere += 1;
                    if !w.nodes[id].alive {
                        w.wrong(|| format!("node {id} was spawned at {at:?} and is not there"));
                    }
                    w.lives_at(id, Target::Small(at));
                }
                // One that was made and could not be told ends, and need not have.
                None => node.started = false,
            }
        });
    };
    // A full table drops the future: then nothing is spawned.
    let _ = cx.spawn_with(run);
}

/// The account of a node says what it has read, in all its lives and wherever it has lived.
pub(crate) fn look(cx: &mut Cx<'_>) {
    let here = cx.shard_index();
    let Some(node) = world(|w| {
        let count = w.living.len();
        (count > 0).then(|| w.living[w.rng.index(count)])
    }) else {
        return;
    };
    let (target, moving) = world(|w| (w.nodes[node].to(), w.nodes[node].moving.is_some()));
    let Some(target) = target.filter(|target| target.shard() == here && !moving) else { return };
    let account = cx.account(target.id());
    world(|w| {
        w.tally.accounts += 1;
        let read = w.nodes[node].read + u32::from(w.is_planted(Planted::ReadUnseen));
        match &account {
            // It is on its way here still, and its account with it.
            Some(account) if account.down => {}
            Some(account) if account.messages == read => {}
            _ => w.wrong(|| format!("node {node} has read {read}, and its account is {account:?}")),
        }
    });
}

/// The names that somebody has.
pub(crate) fn taken(cx: &Cx<'_>) -> usize {
    let has = |name: &&&str| {
        cx.find::<Small>(name).is_some()
            || cx.find::<Large>(name).is_some()
            || cx.find::<Low>(name).is_some()
    };
    NAMES.iter().filter(has).count()
}
