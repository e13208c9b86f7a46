//! The model of relations: who watches whom, who is linked to whom, who is supervised, who gets what is
//! published; and what must be told.

use std::collections::{BTreeMap, BTreeSet};

use tailbeam_runtime::{Addr, AgentId, Down, End, MonitorId, Restart, Supervisor};

use crate::node::Core;
use crate::world::{ANYBODY, NodeRecord, Planted, World};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WatchState {
    Open,
    Told,
    Off,
}

#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) watcher: usize,
    life: u32,
    target: usize,
    pub(crate) state: WatchState,
}

/// A link is between two lives.
#[derive(Debug)]
struct Link {
    ends: [(usize, u32); 2],
    cut: bool,
    told: bool,
}

/// A supervisor, which starts and restarts nodes.
pub(crate) struct Tree {
    pub(crate) supervisor: Addr<Supervisor>,
    pub(crate) children: Vec<(usize, Restart)>,
    /// Whether the runtime still has it, as last asked.
    pub(crate) lives: bool,
}

#[derive(Default)]
pub(crate) struct Bonds {
    pub(crate) watches: BTreeMap<MonitorId, Watch>,
    links: Vec<Link>,
    /// The links of each node, by number.
    links_of: BTreeMap<usize, Vec<usize>>,
    pub(crate) trees: Vec<Tree>,
    publications: usize,
    /// Who has read which publication, and the topic of each.
    readers: BTreeSet<(usize, usize)>,
    topics: Vec<u8>,
}

fn is_of(life: (usize, u32), nodes: &[NodeRecord]) -> bool {
    nodes[life.0].alive && nodes[life.0].lives == life.1
}

impl World {
    pub(crate) fn watches(&mut self, core: &Core, target: usize, id: MonitorId) {
        self.tally.watches += 1;
        let watch = Watch { watcher: core.id, life: core.life, target, state: WatchState::Open };
        if self.bonds.watches.insert(id, watch).is_some() {
            self.wrong(|| format!("{id:?} was given twice"));
        }
    }

    /// A node has ended a watch: `ended` says whether there was one.
    pub(crate) fn watch_off(&mut self, id: MonitorId, ended: bool) {
        self.tally.watches_off += u64::from(ended);
        let Some(watch) = self.bonds.watches.get_mut(&id) else { return };
        let state = std::mem::replace(&mut watch.state, WatchState::Off);
        if ended != (state == WatchState::Open) {
            self.wrong(|| format!("{id:?} was {state:?}, and ended: {ended}"));
        }
    }

    /// A node was told of an end.
    pub(crate) fn told(&mut self, core: &Core, down: Down) {
        let Some(id) = down.monitor else { return self.told_of_link(core, down) };
        self.tally.watches_told += 1;
        if self.is_planted(Planted::DownUnseen) {
            return;
        }
        let twice = self.is_planted(Planted::DownTwice);
        let Some(watch) = self.bonds.watches.get_mut(&id) else {
            return self.wrong(|| format!("{} was told of {down:?}, which is no watch", core.id));
        };
        let state = std::mem::replace(&mut watch.state, WatchState::Told);
        let target = watch.target;
        if self.tight && matches!(down.why, End::Unwatchable) {
            return;
        }
        if (watch.watcher, watch.life) != (core.id, core.life) {
            self.wrong(|| format!("{} was told of a watch of another: {down:?}", core.id));
        }
        if state != WatchState::Open || twice {
            self.wrong(|| format!("{} was told of {down:?}, whose watch was {state:?}", core.id));
        }
        let record = &self.nodes[target];
        if record.lives_ended == 0 {
            self.wrong(|| format!("{} was told of {down:?}: {target} lives", core.id));
        } else if !has_address(record, down.agent) {
            self.wrong(|| format!("{down:?} is not {target}, which is watched"));
        } else if matches!(down.why, End::Unwatchable) {
            self.wrong(|| format!("{target} cannot be watched"));
        }
    }

    pub(crate) fn links(&mut self, core: &Core, other: usize) {
        self.tally.links += 1;
        let number = self.bonds.links.len();
        let ends = [(core.id, core.life), (other, self.nodes[other].lives)];
        self.bonds.links.push(Link { ends, cut: false, told: false });
        for (node, _) in ends {
            self.bonds.links_of.entry(node).or_default().push(number);
        }
    }

    pub(crate) fn unlinks(&mut self, core: &Core, other: usize) {
        for link in &mut self.bonds.links {
            let [one, two] = link.ends.map(|end| end.0);
            link.cut |= (one, two) == (core.id, other) || (two, one) == (core.id, other);
        }
    }

    /// Somebody whom a node is linked to.
    pub(crate) fn linked_to(&mut self, node: usize) -> Option<usize> {
        let links = self.bonds.links_of.get(&node)?;
        let link = &self.bonds.links[links[self.rng.index(links.len())]];
        link.ends.iter().map(|end| end.0).find(|&other| other != node)
    }

    fn told_of_link(&mut self, core: &Core, down: Down) {
        self.tally.links_told += 1;
        if self.tight && matches!(down.why, End::Unwatchable) {
            return;
        }
        let nodes = &self.nodes;
        let links = self.bonds.links_of.get(&core.id).into_iter().flatten();
        let found = links.copied().find(|&number| {
            let link = &self.bonds.links[number];
            let other = link.ends.iter().find(|end| end.0 != core.id);
            let fits = |&(other, _): &(usize, u32)| {
                nodes[other].lives_ended > 0 && has_address(&nodes[other], down.agent)
            };
            link.ends.iter().any(|end| end.0 == core.id) && !link.told && other.is_some_and(fits)
        });
        match found {
            None => self.wrong(|| format!("{} was told of {down:?}, which is no link", core.id)),
            // At most as often as they were linked: a link that was made while the end of the other was on its
            // way is to that one's next life.
            Some(number) => self.bonds.links[number].told = true,
        }
    }

    /// A life has ended: somebody must have ended it.
    pub(crate) fn check_cause(&mut self, id: usize) {
        let node = &self.nodes[id];
        let supervised = node.supervisor.is_some();
        if node.has_cause || supervised || self.stopping {
            let uncaused = !supervised && !self.stopping && self.is_planted(Planted::EndsUncaused);
            if !uncaused {
                return;
            }
        }
        let numbers = self.bonds.links_of.get(&id).into_iter().flatten();
        let mut others = numbers.flat_map(|&number| self.bonds.links[number].ends);
        let linked = others.any(|(other, _)| other != id && self.nodes[other].lives_ended > 0);
        self.tally.links_ended += u64::from(linked);
        if !linked {
            self.wrong(|| format!("node {id} has ended without a cause"));
        }
    }

    pub(crate) fn new_publication(&mut self, topic: u8) -> usize {
        self.bonds.publications += 1;
        self.bonds.topics.push(topic);
        self.bonds.publications - 1
    }

    pub(crate) fn read_published(&mut self, letter: usize, reader: usize) {
        let publication = self.letters[letter].via;
        let topic = self.bonds.topics[publication];
        if self.nodes[reader].topics & 1 << topic == 0 {
            self.wrong(|| format!("node {reader} has never subscribed to {topic}"));
        }
        let twice = self.is_planted(Planted::PublishedTwice);
        if !self.bonds.readers.insert((publication, reader)) || twice {
            self.wrong(|| format!("node {reader} has read publication {publication} twice"));
        }
    }

    /// Nothing is left to happen: who was to be told was told, and who was to end has ended.
    pub(crate) fn check_bonds(&self) -> Result<(), String> {
        let nodes = &self.nodes;
        for (id, watch) in &self.bonds.watches {
            let waits =
                watch.state == WatchState::Open && is_of((watch.watcher, watch.life), nodes);
            if waits && !nodes[watch.target].alive {
                return Err(format!("the end was never told: {id:?}, {watch:?}"));
            }
        }
        // With few relations a link may have been refused, which only those that trap exits hear of.
        for link in self.bonds.links.iter().filter(|link| !link.cut && !self.tight) {
            for (&one, &other) in link.ends.iter().zip(link.ends.iter().rev()) {
                let supervised = [one, other].iter().any(|end| nodes[end.0].supervisor.is_some());
                let failed = !nodes[other.0].alive && !nodes[other.0].stops;
                let traps = nodes[one.0].to().is_some_and(|to| to.traps());
                let was_told = traps && self.was_told_of_link(one.0, other.0);
                let missed = failed && nodes[one.0].alive && !was_told;
                if !supervised && missed {
                    return Err(format!("a link is not heeded: {other:?} failed, {link:?}"));
                }
            }
        }
        self.bonds.trees.iter().try_for_each(|tree| self.check_tree(tree))
    }

    fn was_told_of_link(&self, one: usize, other: usize) -> bool {
        let between = |link: &&Link| link.ends.iter().all(|end| end.0 == one || end.0 == other);
        self.bonds.links.iter().filter(between).any(|link| link.told)
    }

    fn check_tree(&self, tree: &Tree) -> Result<(), String> {
        for &(child, restart) in &tree.children {
            let node = &self.nodes[child];
            let expected = match restart {
                Restart::Permanent => Some(tree.lives),
                Restart::Transient if tree.lives && node.stops && !node.alive => None,
                Restart::Transient => Some(tree.lives),
                Restart::Temporary if tree.lives => None,
                Restart::Temporary => Some(false),
            };
            if expected.is_some_and(|expected| expected != node.alive) {
                let lives = tree.lives;
                return Err(format!(
                    "{restart:?} child {child} lives: {}, supervisor: {lives}; {} lives, {} ended",
                    node.alive, node.lives, node.lives_ended
                ));
            }
        }
        Ok(())
    }
}

pub(crate) fn has_address(node: &NodeRecord, agent: AgentId) -> bool {
    node.addresses.iter().any(|address| address.to.id() == agent)
}

const _: () = assert!(ANYBODY == usize::MAX);

impl World {
    pub(crate) fn is_watch_of(&self, core: &Core, id: MonitorId) -> bool {
        let watch = self.bonds.watches.get(&id);
        watch.is_some_and(|watch| (watch.watcher, watch.life) == (core.id, core.life))
    }
}
