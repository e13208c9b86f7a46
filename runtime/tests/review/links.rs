//! Links of agents that have moved, fail, or link each other at once.

use super::*;

/// Two that trap exits on different shards, one of which has moved: its addresses.
fn pair(sim: &mut Simulation) -> (Addr<Doer<true>>, [Addr<Doer<true>>; 2]) {
    let one = sim.spawn_on(0, || Doer::<true>).expect("room");
    let first = sim.spawn_on(1, || Doer::<true>).expect("room");
    let moved = sim.move_agent(first, 2).expect("idle");
    sim.run_until_idle().expect("no wake is lost");
    (one, [first, moved])
}

/// Which address a link was made or ended with, and who had moved since, decided what was left of it.
#[test]
fn a_link_was_known_by_an_address() {
    for case in 0..32 {
        let bit = move |n: usize| case >> n & 1;
        let mut sim = start(3, Config { relations_max: 3, ..Config::default() });
        let (one, two) = pair(&mut sim);
        // More often than there may be relations: none is left behind.
        for _ in 0..6 {
            have(&mut sim, one, move |cx| cx.link(two[bit(0)]).map_err(|_| Stop));
            if bit(1) == 1 {
                have(&mut sim, two[1], move |cx| cx.link(one).map_err(|_| Stop));
            }
            if bit(2) == 1 {
                have(&mut sim, one, move |cx| {
                    cx.unlink(two[bit(3)]);
                    Ok(())
                });
            } else {
                have(&mut sim, two[1], move |cx| {
                    cx.unlink(one);
                    Ok(())
                });
            }
        }
        assert_eq!((SEEN.get(), live(&sim)), (0, 2), "{case}: no relation was one too many");
        if bit(4) == 1 {
            have(&mut sim, one, panics);
        } else {
            have(&mut sim, two[1], panics);
        }
        assert_eq!((SEEN.get(), live(&sim)), (0, 1), "{case}: they were not linked");
    }
}

/// An end that refused a link named itself by another address than the one that it was known by: nobody was told.
#[test]
fn a_link_that_was_refused_was_not_told() {
    let mut sim = start(3, Config { relations_max: 4, ..Config::default() });
    let (one, two) = pair(&mut sim);
    for n in 0..3 {
        let name = format!("{n}");
        have(&mut sim, two[1], move |cx| cx.register::<Doer<true>>(&name).map_err(|_| Stop));
    }
    have(&mut sim, one, move |cx| cx.link(two[0]).map_err(|_| Stop));
    assert_eq!(SEEN.get(), 1, "it has no room for one more");
}

/// Both link each other at once, more than once, and one ends: the other is told once.
#[test]
fn links_that_met_on_their_way_were_two() {
    for seed in 0..100 {
        SEEN.set(0);
        let faults = Faults { bell_delay_max_ns: 100_000, ..Faults::NONE };
        let mut sim = Simulation::new(seed, Config::default(), 3, faults).expect("starts");
        let (one, two) = pair(&mut sim);
        for _ in 0..=seed % 3 {
            let deed = |with: Addr<Doer<true>>| -> Deed {
                Box::new(move |cx: &mut Cx<'_>| cx.link(with).map_err(|_| Stop))
            };
            let (mine, theirs) = (deed(two[usize::from(seed % 2 == 0)]), deed(one));
            sim.post_on(0, move |cx| assert!(one.try_send(cx, mine).is_ok()));
            sim.post_on(2, move |cx| assert!(two[1].try_send(cx, theirs).is_ok()));
            if seed % 4 > 1 {
                sim.run_until_idle().expect("no wake is lost");
            }
        }
        sim.run_until_idle().expect("no wake is lost");
        if seed % 5 == 0 {
            have(&mut sim, one, move |cx| {
                cx.unlink(two[1]);
                Ok(())
            });
        }
        have(&mut sim, two[1], panics);
        assert_eq!(SEEN.get(), u64::from(seed % 5 != 0), "{seed}");
    }
}

/// A link that was made again while the other end failed and was restarted was neither over nor one.
#[test]
fn a_link_to_one_who_had_just_been_restarted_lost_its_end() {
    for seed in 0..100 {
        SEEN.set(0);
        let faults = Faults { bell_delay_max_ns: 100_000, ..Faults::NONE };
        // The second link waits behind something else, as long as the other fails.
        let config = Config { control_slots: 1, ..Config::default() };
        let mut sim = Simulation::new(seed, config, 2, faults).expect("starts");
        let other = sim.spawn_on(1, || Doer::<false>).expect("room");
        let one = sim.spawn_on(0, || Doer::<true>).expect("room");
        let spec = ChildSpec::new(|| Doer::<false>).named("two").at(Placement::Shard(1));
        begin(&mut sim, Supervision::default(), vec![spec]);
        let two = sim.run_on(0, |cx| cx.find::<Doer<false>>("two")).expect("lives");
        let two = two.expect("it was started");
        have(&mut sim, one, move |cx| cx.link(two).map_err(|_| Stop));
        let again: Deed = Box::new(move |cx| {
            cx.unlink(other);
            cx.link(two).map_err(|_| Stop)
        });
        let fail: Deed = Box::new(panics);
        sim.post_on(0, move |cx| assert!(one.try_send(cx, again).is_ok()));
        sim.post_on(1, move |cx| assert!(two.try_send(cx, fail).is_ok()));
        sim.run_until_idle().expect("no wake is lost");
        assert_eq!(SEEN.get(), 1, "{seed}");
        // Linked again before it was told, or after: that link is over, or one to the new life.
        have(&mut sim, two, panics);
        assert!(SEEN.get() <= 2);
    }
}
