use super::super::bands::bands;
use super::super::table::StageTable;
use super::*;
use crate::record::latency::{
    CoreTick, FleetSecond, LateWake, LatencyWindow, Off, PollCounts, ResponderSums, STAGES, Stamps,
    ThrottleRecord, TurnOff, Why,
};

fn request(stamps: Stamps) -> Exemplar {
    Exemplar {
        why: Why::Late,
        asker: 1,
        responder: 2,
        asker_shard: 0,
        responder_shard: 1,
        stamps,
        counts: None,
    }
}

/// Hop of 1 ms, run queue of 3 ms, service of 2 ms.
fn slow() -> Stamps {
    Stamps {
        intended_ns: 10_000_000,
        sent_ns: 10_000_000,
        out: Leg {
            published_ns: 10_000_000,
            seen_ns: 11_000_000,
            aside_ns: 0,
            turn_ns: 14_000_000,
        },
        polls: 1,
        service_ns: 2_000_000,
        answered_ns: 16_000_000,
        back: Leg {
            published_ns: 16_000_000,
            seen_ns: 16_000_000,
            aside_ns: 0,
            turn_ns: 16_000_000,
        },
        closed_ns: 16_000_000,
        ..Stamps::default()
    }
}

fn turn(agent: u32, from_ns: u64, len_ns: u64) -> LongTurn {
    LongTurn { agent, from_ns, len_ns }
}

fn off(from_ns: u64, to_ns: u64, preempted: bool) -> Off {
    Off { from_ns, to_ns, preempted }
}

fn core(shard: u16, turns: Vec<LongTurn>, off: Vec<Off>) -> LatencyWindow {
    let tick = CoreTick { preempted_ns: Some(0), ..CoreTick::default() };
    LatencyWindow { shard, long_turns: turns, off, ticks: vec![tick], ..LatencyWindow::default() }
}

#[test]
fn each_wait_is_behind_what_its_core_did() {
    let windows = [
        core(0, vec![turn(77, 10_200_000, 5_000_000)], vec![]),
        core(
            1,
            vec![turn(8, 9_000_000, 2_500_000), turn(9, 12_000_000, 1_500_000)],
            vec![
                off(10_100_000, 10_300_000, true),
                off(12_500_000, 12_900_000, false),
                off(13_600_000, 13_700_000, false),
            ],
        ),
    ];
    let explained = explain(&request(slow()), &Index::new(&windows), 0);
    let [run, hop] = &explained.waits[..] else { panic!("{:?}", explained.waits) };
    let told = |wait: &Wait| -> Vec<(Behind, u64)> {
        wait.causes.iter().map(|cause| (cause.behind, cause.ns)).collect()
    };
    assert_eq!((run.stage, run.shard), (Stage::RunQueue, 1));
    assert_eq!(
        told(run),
        [
            (Behind::Turn { agent: 9 }, 1_100_000),
            (Behind::Turn { agent: 8 }, 500_000),
            (Behind::Blocked { during: 9 }, 400_000),
            (Behind::Asleep, 100_000),
        ]
    );
    assert_eq!(run.rest_ns, 900_000, "3 ms less what is known");
    assert_eq!(
        (hop.stage, hop.shard),
        (Stage::Hop, 1),
        "who waits for a hop waits for the receiver"
    );
    let behind_8 =
        [(Behind::Turn { agent: 8 }, 800_000), (Behind::Preempted { during: Some(8) }, 200_000)];
    assert_eq!((told(hop), hop.rest_ns), (behind_8.to_vec(), 0));
}

#[test]
fn a_mailbox_and_a_timer_wait_for_the_responder_and_an_answer_for_the_asker() {
    let mut stamps = slow();
    stamps.out.aside_ns = 11_500_000;
    (stamps.planned_ns, stamps.due_ns, stamps.timer_turn_ns) = (500_000, 14_500_000, 15_000_000);
    stamps.service_ns = 1_000_000;
    stamps.back =
        Leg { published_ns: 16_250_000, seen_ns: 17_000_000, aside_ns: 0, turn_ns: 17_125_000 };
    stamps.closed_ns = 17_125_000;
    let explained = explain(&request(stamps), &Index::new(&[]), 0);
    let mut told: Vec<(Stage, u16, u64)> =
        explained.waits.iter().map(|w| (w.stage, w.shard, w.rest_ns)).collect();
    told.sort_unstable();
    let expected = [
        (Stage::Hop, 1, 1_000_000),
        (Stage::RunQueue, 1, 500_000),
        (Stage::Mailbox, 1, 2_500_000),
        (Stage::Timer, 1, 500_000),
        (Stage::ReplySendQueue, 1, 250_000),
        (Stage::ReplyHop, 0, 750_000),
        (Stage::ReplyRunQueue, 0, 125_000),
    ];
    assert_eq!(told, expected);
    let sum: u64 = told.iter().map(|(_, _, ns)| ns).sum::<u64>() + stamps.service_ns;
    assert_eq!(sum, explained.system_ns);
}

#[test]
fn service_is_split_where_it_is_known() {
    let intervals = vec![off(14_500_000, 15_000_000, true), off(15_200_000, 15_300_000, false)];
    let windows = [core(1, vec![], intervals)];
    let index = Index::new(&windows);
    let mut exemplar = request(slow());
    let split = service(&exemplar, &index);
    assert_eq!((split.preempted_ns, split.blocked_ns), (Some(500_000), Some(100_000)));
    assert_eq!((split.placed_ns, split.off_ns, split.rest_ns), (2_000_000, None, 1_400_000));
    exemplar.counts = Some(PollCounts {
        cpu_ns: Some(1_300_000),
        allocator_ns: Some(250_000),
        minor_faults: Some(7),
        ..PollCounts::default()
    });
    let split = service(&exemplar, &index);
    assert_eq!((split.off_ns, split.allocator_ns), (Some(700_000), Some(250_000)));
    assert_eq!((split.minor_faults, split.major_faults), (Some(7), None));
    assert_eq!(
        split.rest_ns,
        2_000_000 - 700_000 - 250_000,
        "short intervals are in the CPU time's"
    );
    let silent = LatencyWindow { ticks: vec![CoreTick::default()], ..windows[0].clone() };
    let split = service(&exemplar, &Index::new(&[silent]));
    assert_eq!((split.preempted_ns, split.blocked_ns), (None, None), "not recorded is not none");
}

#[test]
fn of_a_service_in_several_polls_only_the_long_ones_are_placed() {
    let mut stamps = slow();
    (stamps.service_ns, stamps.suspended_ns, stamps.polls) = (800_000, 1_200_000, 2);
    let turns = vec![turn(2, 14_000_000, 700_000), turn(3, 14_800_000, 900_000)];
    let intervals = vec![off(14_100_000, 14_400_000, false), off(15_000_000, 15_500_000, true)];
    let windows = [core(1, turns, intervals)];
    let split = service(&request(stamps), &Index::new(&windows));
    assert_eq!((split.placed_ns, split.blocked_ns), (700_000, Some(300_000)));
    assert_eq!(split.preempted_ns, Some(0), "what another agent's turn lost is not its");
    let windows = [core(1, vec![], vec![off(15_000_000, 15_500_000, true)])];
    let split = service(&request(stamps), &Index::new(&windows));
    assert_eq!((split.placed_ns, split.preempted_ns), (0, None), "short polls cannot be placed");
}

#[test]
fn a_core_that_came_late_to_what_was_there_for_it_is_told() {
    let late = |ready_ns| LateWake { from_ns: 9_500_000, to_ns: 10_900_000, ready_ns };
    let told = |late: LateWake, off: Vec<Off>| {
        let mut window = core(1, vec![], off);
        window.more.late_wakes = vec![late];
        let explained = explain(&request(slow()), &Index::new(&[window]), 0);
        let hop = explained.waits.iter().find(|wait| wait.stage == Stage::Hop).unwrap();
        let causes: Vec<_> = hop.causes.iter().map(|c| (c.behind, c.ns)).collect();
        (causes, hop.rest_ns)
    };
    let taken = |ns| (Behind::Preempted { during: None }, ns);
    assert_eq!(told(late(Some(1_300_000)), vec![]), (vec![taken(900_000)], 100_000));
    for ready in [Some(100_000), None] {
        assert_eq!(told(late(ready), vec![]), (vec![(Behind::Asleep, 900_000)], 100_000));
    }
    let recorded = vec![off(10_000_000, 10_400_000, true)];
    let both = told(late(Some(1_300_000)), recorded);
    assert_eq!(both, (vec![taken(900_000)], 100_000), "nothing is told twice");
}

#[test]
fn without_switches_a_turn_is_split_by_its_cpu_time_and_what_may_be_either_is_nobodys() {
    // Agent 2's own turn of 2 ms was off its CPU for 1.5 ms, agent 8's of 3 ms for 2 ms.
    let mut window =
        core(1, vec![turn(8, 10_500_000, 3_000_000), turn(2, 14_000_000, 2_000_000)], Vec::new());
    window.ticks = vec![CoreTick::default()];
    window.more.turns_read = true;
    let off = |from_ns, off_ns, ready_ns| TurnOff { from_ns, off_ns, ready_ns: Some(ready_ns) };
    window.more.turn_off =
        vec![off(10_500_000, 2_000_000, 1_900_000), off(14_000_000, 1_500_000, 100_000)];
    let explained = explain(&request(slow()), &Index::new(&[window.clone()]), 0);
    let split = explained.service;
    assert_eq!((split.preempted_ns, split.blocked_ns), (Some(100_000), Some(1_400_000)));
    assert_eq!(split.rest_ns, 500_000, "what is left is the agent's");
    // The hop has 0.5 ms of agent 8's turn, the run queue 2.5 ms of it.
    let told = |stage: Stage| {
        let wait = explained.waits.iter().find(|wait| wait.stage == stage).unwrap();
        let causes: Vec<_> = wait.causes.iter().map(|c| (c.behind, c.ns)).collect();
        (causes, wait.rest_ns)
    };
    assert_eq!(told(Stage::Hop), (vec![], 1_000_000), "0.5 ms of the turn may be either");
    let run = vec![
        (Behind::Preempted { during: Some(8) }, 1_500_000),
        (Behind::Turn { agent: 8 }, 500_000),
    ];
    assert_eq!(told(Stage::RunQueue), (run, 1_000_000));
    window.more.turns_read = false;
    window.more.turn_off.clear();
    let split = service(&request(slow()), &Index::new(&[window]));
    assert_eq!((split.preempted_ns, split.rest_ns), (None, 2_000_000), "not looked for");
}

#[test]
fn a_band_tells_its_causes_by_requests_and_not_by_exemplars() {
    // Core 0 kept 2 of 4 requests, all behind agent 8; core 1 kept 2 of 40, none behind anything.
    let window = |shard: u16, requests: u64, agent: Option<u32>| {
        let mut table = StageTable::new();
        let mut stages = [0; STAGES];
        stages[Stage::RunQueue.index()] = 3_000_000;
        (0..requests).for_each(|_| table.add(6_000_000, &stages));
        let buckets = table.take();
        let all = buckets[0].sums;
        let mut exemplar = request(slow());
        (exemplar.why, exemplar.responder_shard) = (Why::Uniform, shard);
        LatencyWindow {
            responders: vec![ResponderSums { shard, all, ..ResponderSums::default() }],
            buckets,
            exemplars: vec![exemplar; 2],
            ..core(
                shard,
                agent.map(|agent| turn(agent, 11_000_000, 3_000_000)).into_iter().collect(),
                vec![],
            )
        }
    };
    let windows = [window(0, 4, Some(8)), window(1, 40, None)];
    let found = bands(&windows);
    let all = causes(&windows, &found, &Index::new(&windows), 0);
    let first = all[0].as_ref().unwrap();
    assert_eq!((first.draws, first.requests), (Draws { uniform: 4, late: 0 }, 44));
    let behind_8 = first
        .waits
        .iter()
        .find(|blame| blame.behind == Some(Behind::Turn { agent: 8 }) && blame.shard == 0)
        .unwrap();
    assert_eq!((behind_8.stage, behind_8.requests), (Stage::RunQueue, 2));
    assert!((behind_8.ns.mean - 3e6 * 4.0 / 44.0).abs() < 1.0, "{behind_8:?}");
    assert_eq!(first.waits[0].behind, None, "most is behind nothing that was recorded");
    assert!((first.service.unwrap().mean - 2e6).abs() < 1e-3);
    assert_eq!(first.off, None, "nothing was counted");
    assert!(all[1..].iter().all(Option::is_none));
}

/// A second in which the quota held the process for so long.
fn throttled(mut window: LatencyWindow, ns: u64) -> LatencyWindow {
    let throttle = Some(ThrottleRecord { periods: 10, times: 5, ns });
    let second =
        FleetSecond { from_ns: 0, to_ns: 1_000_000_000, throttle, ..FleetSecond::default() };
    window.more.seconds = vec![second];
    window
}

#[test]
fn in_a_throttled_second_the_quota_has_what_would_be_preempted() {
    // The run queue's 3 ms are off the CPU, of which 2 ms could have run; the service is preempted for 0.5 ms.
    let intervals = || {
        vec![
            off(11_000_000, 13_000_000, true),
            off(13_000_000, 14_000_000, false),
            off(14_500_000, 15_000_000, true),
        ]
    };
    let told = |ns: u64| {
        let window = throttled(core(1, vec![turn(9, 12_000_000, 2_000_000)], intervals()), ns);
        let explained = explain(&request(slow()), &Index::new(&[window]), 0);
        let run = explained.waits.iter().find(|wait| wait.stage == Stage::RunQueue).unwrap();
        let of = |behind: Behind| {
            run.causes.iter().filter(|cause| cause.behind == behind).map(|cause| cause.ns).sum()
        };
        let sum: u64 = run.causes.iter().map(|cause| cause.ns).sum();
        assert_eq!(sum + run.rest_ns, 3_000_000, "nothing is in two of them");
        assert_eq!(explained.service.preempted_ns, Some(500_000), "the quota's is a part of it");
        let preempted = [None, Some(9)].map(|during| of(Behind::Preempted { during }));
        (of(Behind::Throttled), preempted, explained.service.throttled_ns)
    };
    assert_eq!(told(0), (0, [1_000_000, 1_000_000], Some(0)), "a clean second");
    assert_eq!(told(9_000_000_000), (2_000_000, [0, 0], Some(500_000)), "all that was ready");
    // 2.5 ms were ready and 0.5 ms throttled: one fifth of each.
    assert_eq!(told(500_000), (400_000, [800_000, 800_000], Some(100_000)));
}

#[test]
fn a_late_wake_up_is_the_quotas_where_the_core_was_ready() {
    let told = |ready_ns: u64| {
        let mut window = throttled(core(1, vec![], vec![]), 5_000_000);
        window.ticks[0] = CoreTick {
            from_ns: 0,
            to_ns: 1_000_000_000,
            wait_ns: Some(5_000_000),
            ..CoreTick::default()
        };
        let ready_ns = Some(ready_ns);
        window.more.late_wakes = vec![LateWake { from_ns: 9_500_000, to_ns: 10_900_000, ready_ns }];
        let explained = explain(&request(slow()), &Index::new(&[window]), 0);
        let hop = explained.waits.iter().find(|wait| wait.stage == Stage::Hop).unwrap();
        hop.causes.iter().map(|cause| (cause.behind, cause.ns)).collect::<Vec<_>>()
    };
    assert_eq!(told(1_300_000), [(Behind::Throttled, 900_000)]);
    assert_eq!(told(100_000), [(Behind::Asleep, 900_000)], "it slept: that is not the quota's");
}

#[test]
fn a_message_that_a_link_held_and_one_without_an_answer_are_no_cores_doing() {
    let mut window = core(1, vec![turn(8, 11_000_000, 400_000)], vec![]);
    let (from_ns, to_ns) = (0, 1_000_000_000);
    window.more.seconds =
        vec![FleetSecond { from_ns, to_ns, links_delayed: 9, ..FleetSecond::default() }];
    let mut stamps = slow();
    stamps.out.published_ns = 10_000_000;
    (stamps.out.seen_ns, stamps.out.turn_ns) = (13_900_000, 14_000_000);
    let index = Index::new(&[window]);
    let explained = explain(&request(stamps), &index, 0);
    let hop = explained.waits.iter().find(|wait| wait.stage == Stage::Hop).unwrap();
    let causes: Vec<_> = hop.causes.iter().map(|cause| (cause.behind, cause.ns)).collect();
    assert_eq!(causes, [(Behind::Link, 3_500_000), (Behind::Turn { agent: 8 }, 400_000)]);
    assert_eq!(hop.rest_ns, 0);
    let open = Stamps { intended_ns: 1, sent_ns: 1, closed_ns: 9_000_001, ..Stamps::default() };
    let explained = explain(&request(open), &index, 0);
    let [lost] = &explained.waits[..] else { panic!("{:?}", explained.waits) };
    let causes: Vec<_> = lost.causes.iter().map(|cause| (cause.behind, cause.ns)).collect();
    assert_eq!((causes, lost.rest_ns), (vec![(Behind::NeverAnswered, 9_000_000)], 0));
}

#[test]
fn a_band_tells_how_much_of_it_the_quota_held() {
    let window = |ns: u64| {
        let mut table = StageTable::new();
        let mut stages = [0; STAGES];
        stages[Stage::RunQueue.index()] = 3_000_000;
        (0..4).for_each(|_| table.add(6_000_000, &stages));
        let buckets = table.take();
        let all = buckets[0].sums;
        let mut exemplar = request(slow());
        exemplar.why = Why::Uniform;
        let intervals = vec![off(11_500_000, 13_500_000, true), off(14_500_000, 15_000_000, true)];
        let window = LatencyWindow {
            responders: vec![ResponderSums { shard: 1, all, ..ResponderSums::default() }],
            buckets,
            exemplars: vec![exemplar; 2],
            ..core(1, vec![], intervals)
        };
        throttled(window, ns)
    };
    let of = |ns: u64| {
        let windows = [window(ns)];
        let all = causes(&windows, &bands(&windows), &Index::new(&windows), 0);
        all.iter().flatten().next().unwrap().throttled.unwrap().mean
    };
    assert!((of(1_000_000_000) - 2.5e6).abs() < 1.0, "waits and service");
    assert!((of(500_000) - 0.5e6).abs() < 1.0, "a fifth");
    assert!(of(0).abs() < 1e-9, "the clean twin");
}
