use super::*;

#[test]
fn a_window_is_moved_whole_and_what_did_not_happen_stays_so() {
    let out = Leg { seen_ns: 5_000, turn_ns: 6_000, ..Leg::default() };
    let stamps = Stamps { intended_ns: 4_000, out, service_ns: 50, ..Stamps::default() };
    let (asker, responder, asker_shard, responder_shard) = (1, 2, 0, 0);
    let exemplar = Exemplar {
        why: Why::Top,
        asker,
        responder,
        asker_shard,
        responder_shard,
        stamps,
        counts: None,
    };
    let tick = CoreTick { from_ns: 4_000, to_ns: 9_000, turns_ns: 70, ..CoreTick::default() };
    let second = FleetSecond { from_ns: 4_000, to_ns: 9_000, ..FleetSecond::default() };
    let made = LatencyWindow {
        from_ns: 4_000,
        to_ns: 9_000,
        exemplars: vec![exemplar],
        ticks: vec![tick],
        long_turns: vec![LongTurn { agent: 1, from_ns: 5_000, len_ns: 60 }],
        off: vec![Off { from_ns: 5_000, to_ns: 5_500, preempted: true }],
        more: More { seconds: vec![second], ..More::default() },
        ..LatencyWindow::default()
    };
    let mut shifted = made.clone();
    shifted.shift(-3_000);
    let of = shifted.exemplars[0].stamps;
    assert_eq!((of.intended_ns, of.out.seen_ns, of.out.turn_ns), (1_000, 2_000, 3_000));
    assert_eq!((of.out.published_ns, of.due_ns, of.closed_ns), (0, 0, 0), "none stays none");
    assert_eq!((of.service_ns, shifted.ticks[0].turns_ns), (50, 70), "lengths stay");
    assert_eq!(
        (shifted.from_ns, shifted.ticks[0].to_ns, shifted.off[0].to_ns),
        (1_000, 6_000, 2_500)
    );
    let second = shifted.more.seconds[0];
    assert_eq!((second.from_ns, second.to_ns), (1_000, 6_000));
    shifted.shift(3_000);
    assert_eq!(shifted, made);
}

#[test]
fn a_window_is_read_across_versions() {
    let full = TopAgent { agent: 17, weight: 3, error: 0, count: 3 };
    let off = TurnOff { from_ns: 5, off_ns: 20_000, ready_ns: None };
    let late = LateWake { from_ns: 5, to_ns: 9, ready_ns: Some(4) };
    let throttle = Some(ThrottleRecord { periods: 10, times: 4, ns: 200_000 });
    let second = FleetSecond { from_ns: 5, to_ns: 9, throttle, ..FleetSecond::default() };
    let more = More {
        top_full: vec![full],
        turn_off: vec![off],
        turns_read: true,
        late_wakes: vec![late],
        late_wakes_left_out: (7, 1),
        staged_every: 10,
        undrawn: LegSum { count: 300, ns: 90_000 },
        seconds: vec![second],
        carried: vec![CarriedSecond {
            from_ns: 5,
            to_ns: 9,
            carried: 8,
            ..CarriedSecond::default()
        }],
        samples_late: 2,
    };
    let window = LatencyWindow { window: 7, clamped: 300, more, ..LatencyWindow::default() };
    let bytes = window.encode().expect("plain values have bytes");
    assert_eq!(LatencyWindow::decode(&bytes).as_ref(), Ok(&window));
    let old = postcard::to_allocvec(&window).expect("plain values have bytes");
    let read = LatencyWindow::decode(&old).expect("as older versions wrote it");
    assert_eq!((read.clamped, read.more), (300, More::default()));
    assert_eq!(postcard::from_bytes::<LatencyWindow>(&bytes).map(|w| w.clamped), Ok(300));
    let newer = [&bytes[..], &[1, 2, 3]].concat();
    assert_eq!(LatencyWindow::decode(&newer), Ok(window));
    for cut in 0..old.len() {
        assert!(LatencyWindow::decode(&old[..cut]).is_err(), "cut at {cut}");
    }
}
