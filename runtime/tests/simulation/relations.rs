//! The operations on relations: watches, links, kills, supervision, publications, moves.

use tailbeam_runtime::sim::Simulation;
use tailbeam_runtime::{
    Backoff, ChildSpec, Cx, Down, Intensity, MoveError, Placement, RelationError, Restart, Stop,
    Strategy, Supervision,
};

use crate::bonds::{Tree, WatchState};
use crate::node::{Act, Core, Large, Letter, Low, Small, each};
use crate::ops;
use crate::world::{ANYBODY, World, world, wrong};

const TOPICS: [&str; 3] = ["a", "b", "c"];

pub(crate) fn monitor(core: &Core, cx: &mut Cx<'_>) {
    let Some(node) = world(World::somebody) else { return };
    let Some((_, target)) = world(|w| w.address_of(node)) else { return };
    match each!(target, to => cx.monitor(to)) {
        Ok(id) => world(|w| w.watches(core, node, id)),
        Err(RelationError::Full { .. }) if world(|w| w.tight) => {}
        Err(error) => wrong(|| format!("node {} cannot watch: {error}", core.id)),
    }
}

pub(crate) fn demonitor(core: &Core, cx: &mut Cx<'_>) {
    let ids = world(|w| {
        let own = w.bonds.watches.iter().filter(|(_, watch)| watch.watcher == core.id);
        let open = own.filter(|(_, watch)| watch.state != WatchState::Off);
        open.map(|(id, _)| *id).collect::<Vec<_>>()
    });
    if !ids.is_empty() {
        let id = ids[world(|w| w.rng.index(ids.len()))];
        // A watch of an earlier life is none of this one's.
        let mine = world(|w| w.is_watch_of(core, id));
        let ended = cx.demonitor(id);
        if mine {
            world(|w| w.watch_off(id, ended));
        } else if ended {
            wrong(|| format!("{id:?} is a watch of an earlier life"));
        }
    }
}

/// What a node does when it is told of an end.
pub(crate) fn on_down(core: &Core, down: Down, cx: &mut Cx<'_>) -> Result<(), Stop> {
    world(|w| w.told(core, down));
    match world(|w| if w.begin_op() { w.rng.below(20) } else { 99 }) {
        0 if world(|w| w.weighs(ops::Op::Stop)) => return Err(Stop),
        1 if world(|w| w.weighs(ops::Op::Panic)) => core.panics(),
        2..5 => monitor(core, cx),
        _ => {}
    }
    Ok(())
}

pub(crate) fn link(core: &Core, cx: &mut Cx<'_>) {
    let Some(node) = world(World::somebody).filter(|&node| node != core.id) else { return };
    let Some((_, target)) = world(|w| w.address_of(node)) else { return };
    match each!(target, to => cx.link(to)) {
        Ok(()) => world(|w| w.links(core, node)),
        Err(RelationError::Full { .. }) if world(|w| w.tight) => {}
        Err(error) => wrong(|| format!("node {} cannot link: {error}", core.id)),
    }
}

pub(crate) fn unlink(core: &Core, cx: &mut Cx<'_>) {
    let Some(node) = world(|w| w.linked_to(core.id)) else { return };
    let Some((_, target)) = world(|w| w.address_of(node)) else { return };
    each!(target, to => cx.unlink(to));
    world(|w| w.unlinks(core, node));
}

pub(crate) fn kill(cx: &mut Cx<'_>) {
    let Some(node) = world(World::somebody) else { return };
    let Some((_, target)) = world(|w| w.address_of(node)) else { return };
    world(|w| {
        w.nodes[node].has_cause = true;
        w.tally.kills += 1;
    });
    cx.kill(target.id());
}

pub(crate) fn kill_supervisor(cx: &mut Cx<'_>) {
    let supervisor = world(|w| {
        let count = w.bonds.trees.len();
        (count > 0).then(|| w.bonds.trees[w.rng.index(count)].supervisor)
    });
    supervisor.into_iter().for_each(|supervisor| cx.kill(supervisor.id()));
}

pub(crate) fn supervise(cx: &mut Cx<'_>) {
    if world(|w| w.living.len() >= w.nodes_wanted) {
        return;
    }
    let (plan, count) = world(|w| (draw_plan(w), 1 + w.rng.index(3)));
    let number = world(|w| w.bonds.trees.len());
    let (mut children, mut specs) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let restart =
            world(|w| w.rng.one_of(&[Restart::Permanent, Restart::Transient, Restart::Temporary]));
        let node = world(|w| w.new_node(cx.shard_index(), Some(number)));
        children.push((node, restart));
        specs.push(draw_spec(node).restart(restart));
    }
    if let Ok(supervisor) = cx.supervise(plan, specs) {
        world(|w| {
            w.tally.supervisors += 1;
            w.bonds.trees.push(Tree { supervisor, children, lives: true });
        });
    }
}

fn draw_plan(w: &mut World) -> Supervision {
    let rng = &mut w.rng;
    Supervision {
        strategy: rng.one_of(&[Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne]),
        intensity: Intensity {
            restarts: rng.one_of(&[0, 1, 5, 50]),
            // Longer than any run: a child that can never start is given up.
            within_ns: 1 << 60,
        },
        backoff: Backoff { first_ns: rng.one_of(&[0, 0, 1, 1_000_000]), max_ns: 5_000_000 },
    }
}

fn draw_spec(node: usize) -> ChildSpec {
    let spec = match world(|w| w.rng.below(3)) {
        0 => ChildSpec::new(move || Small::new(Core::begin(node))),
        1 => ChildSpec::new(move || Large::new(Core::begin(node))),
        _ => ChildSpec::new(move || Low::new(Core::begin(node))),
    };
    // There may be no such shard: then it cannot start.
    let shard = world(|w| w.rng.index(9));
    match world(|w| w.rng.below(3)) {
        0 => spec.at(Placement::RoundRobin),
        1 => spec.at(Placement::Shard(shard)),
        _ => spec,
    }
}

pub(crate) fn subscribe(core: &Core, cx: &mut Cx<'_>) {
    let Some(target) = world(|w| w.nodes[core.id].to()) else { return };
    let topic = world(|w| w.rng.index(TOPICS.len()));
    world(|w| w.nodes[core.id].topics |= 1 << topic);
    let subscribed = match target {
        crate::node::Target::Small(_) => cx.subscribe::<Small>(TOPICS[topic]),
        crate::node::Target::Large(_) => cx.subscribe::<Large>(TOPICS[topic]),
        crate::node::Target::Low(_) => cx.subscribe::<Low>(TOPICS[topic]),
    };
    let refused = matches!(subscribed, Err(RelationError::Full { .. })) && world(|w| w.tight);
    if subscribed != Ok(true) && !refused {
        wrong(|| format!("node {} cannot subscribe: {subscribed:?}", core.id));
    }
}

pub(crate) fn unsubscribe(_: &Core, cx: &mut Cx<'_>) {
    cx.unsubscribe(TOPICS[world(|w| w.rng.index(TOPICS.len()))]);
}

/// Sends a copy to each member of a topic.
pub(crate) fn publish(cx: &mut Cx<'_>) {
    let topic = world(|w| w.rng.index(TOPICS.len()));
    let number = world(|w| w.new_publication(u8::try_from(topic).expect("few")));
    let original = Letter::new(cx.shard_index(), (ANYBODY, number), Act::Nothing);
    world(|w| w.publishing = Some(Vec::new()));
    let published = cx.publish(TOPICS[topic], &original);
    world(|w| {
        let sent = w.publishing.take().map_or(0, |copies| copies.len());
        w.tally.letters_published += sent as u64;
        if published.sent as usize != sent {
            w.wrong(|| format!("{published:?}, and {sent} copies did not come back"));
        }
        // The original is nobody's.
        let id = original.id();
        w.published_unread[w.letters[id].origin] += 1;
        w.letters[id].fate = crate::world::Fate::Accepted;
        w.letter_returned(id);
    });
}

/// Moves a node to a shard.
pub(crate) fn move_node(node: usize, shard: usize, sim: &mut Simulation) -> Result<(), String> {
    let Some(target) = world(|w| w.nodes[node].to()) else { return Ok(()) };
    if target.shard() == shard {
        return Ok(());
    }
    world(|w| w.nodes[node].moving = Some(shard));
    let moved = target.move_to(shard, sim);
    world(|w| {
        w.nodes[node].moving = None;
        let arrived = w.nodes[node].to().map(|to| to.id());
        match moved {
            Ok(to) => {
                w.tally.moves += 1;
                match arrived == Some(to.id()) {
                    true => Ok(()),
                    false if arrived == Some(target.id()) => {
                        w.lives_at(node, to);
                        Ok(())
                    }
                    false => Err(format!("node {node} has moved to {to:?} and is at {arrived:?}")),
                }
            }
            Err(error) => {
                w.tally.moves_refused += 1;
                let lives = w.nodes[node].alive && w.nodes[node].supervisor.is_none();
                let lied = match error {
                    MoveError::Busy | MoveError::NoRoom => false,
                    MoveError::Full { .. } => !w.tight,
                    MoveError::Gone => lives,
                    _ => true,
                };
                if lied || arrived != Some(target.id()) {
                    return Err(format!(
                        "node {node} was not moved, {error}: it is at {arrived:?}"
                    ));
                }
                Ok(())
            }
        }
    })
}
