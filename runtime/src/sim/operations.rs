//! Operations in a simulation: each fault is shown, what must be found is found, and nothing is left.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::pin;
use std::task::Poll;

use super::kernel::Kernel;
use super::*;
use crate::agent::Stop;
use crate::error::OpError;
use crate::fs::File;
use crate::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use crate::op::{Op, Pool, Table};

/// A path of its own; what is made there is removed.
struct Temp(PathBuf);

impl Temp {
    fn new(name: &str) -> Self {
        let file = format!("tailbeam-operations-{name}-{}", std::process::id());
        Self(std::env::temp_dir().join(file))
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn small() -> Config {
    let limits = Config { agents_max: 64, timers_max: 64, messages_max: 64, ..Config::default() };
    Config { buffers: 16, buffer_bytes: 64, peer_ring_slots: 4, ..limits }
}

fn start(seed: u64, config: Config, faults: Faults) -> Simulation {
    Simulation::new(seed, config, 2, faults).expect("the limits work")
}

/// Has `run` begin on a shard; what it comes to is there when it has ended.
fn begin<R: Send + 'static>(
    sim: &mut Simulation,
    shard: usize,
    run: impl AsyncFnOnce(&mut Cx<'_>) -> R + Send + 'static,
) -> Arc<Mutex<Option<R>>> {
    let outcome = Arc::new(Mutex::new(None));
    let theirs = Arc::clone(&outcome);
    let spawn = move |cx: &mut Cx<'_>| {
        let run = async move |cx: &mut Cx<'_>| {
            let value = run(cx).await;
            *theirs.lock().expect("nobody panics under it") = Some(value);
        };
        assert!(cx.spawn_with(run).is_ok(), "room");
    };
    sim.run_on(shard, spawn).expect("lives");
    outcome
}

/// Runs `run` to its end, or as far as it comes, then the simulation to its own.
fn run<R: Send + 'static>(
    (seed, config, faults): (u64, Config, Faults),
    run: impl AsyncFnOnce(&mut Cx<'_>) -> R + Send + 'static,
) -> (Option<R>, Simulation) {
    let mut sim = start(seed, config, faults);
    let outcome = begin(&mut sim, 0, run);
    sim.run_until_idle().expect("no wake is lost");
    let outcome = outcome.lock().expect("nobody panics under it").take();
    (outcome, sim)
}

/// Ends a simulation that holds nothing; the hash of its trace.
fn end(mut sim: Simulation) -> u64 {
    let report = sim.shutdown().expect("ends");
    assert!(report.shards.iter().all(|shard| shard.ops_leaked == 0), "{report:?}");
    sim.trace_hash()
}

const ALL: u32 = 1_000_000;
const LEN: usize = 1_000;

fn bytes() -> Vec<u8> {
    (0..=250).cycle().take(LEN).collect()
}

/// Sends `LEN` bytes through a pair, and receives them.
async fn through_pair(cx: &mut Cx<'_>) -> Result<Vec<u8>, OpError> {
    let (one, two) = UnixStream::pair(cx)?;
    one.send(bytes()).await.0?;
    one.shutdown_send()?;
    drop(one);
    let mut received = Vec::new();
    while let Some(lease) = two.recv().await? {
        received.extend_from_slice(&lease);
    }
    Ok(received)
}

/// Writes `LEN` bytes, and reads them.
async fn through_file(cx: &mut Cx<'_>, path: PathBuf) -> Result<Vec<u8>, OpError> {
    let file = File::create(cx, &path).await?;
    file.allocate(0, LEN as u64).await?;
    assert_eq!(file.write_at(bytes(), 0).await.0?, LEN);
    file.sync_data().await?;
    let (count, buffer) = file.read_at(vec![0; 2 * LEN], 0).await;
    assert_eq!(count?, LEN);
    file.close().await?;
    Ok(buffer[..LEN].to_vec())
}

/// Polls a future once and drops it.
async fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    std::future::poll_fn(move |context| {
        Poll::Ready(match future.as_mut().poll(context) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    })
    .await
}

#[test]
fn sockets_and_files_work_and_repeat() {
    let both = |seed| {
        let faults = Faults { ops_failed_ppm: 0, ..Faults::drawn(&mut Rng::new(seed)) };
        let temp = Temp::new("both");
        let path = temp.0.clone();
        let (outcome, sim) = run((seed, small(), faults), async move |cx: &mut Cx<'_>| {
            (through_pair(cx).await.expect("whole"), through_file(cx, path).await.expect("whole"))
        });
        assert_eq!(outcome.expect("ends"), (bytes(), bytes()));
        assert_eq!((sim.held()[0].ops, sim.held()[0].buffers), (0, 0));
        assert!(sim.is_exact());
        end(sim)
    };
    for seed in 0..30 {
        assert_eq!(both(seed), both(seed));
        assert_ne!(both(seed), both(seed + 1));
    }
}

/// Echoes over a listener: the clients live on both shards.
#[test]
fn connections_reach_other_shards() {
    for seed in 0..30 {
        let faults = Faults { ops_failed_ppm: 0, ..Faults::drawn(&mut Rng::new(seed)) };
        let temp = Temp::new("listener");
        let mut sim = start(seed, small(), faults);
        let path = temp.0.clone();
        let server = begin(&mut sim, 1, async move |cx: &mut Cx<'_>| {
            let listener = UnixListener::bind(cx, &path).expect("a free path");
            for _ in 0..4 {
                let stream = listener.accept().await.expect("connects");
                while let Some(lease) = stream.recv().await.expect("no reset") {
                    stream.send(lease).await.0.expect("sent");
                }
            }
        });
        sim.run_until_idle().expect("no wake is lost");
        let clients = [0, 1, 0, 1].map(|shard| {
            let path = temp.0.clone();
            begin(&mut sim, shard, async move |cx: &mut Cx<'_>| {
                let stream = UnixStream::connect(cx, &path).await.expect("listens");
                stream.send(bytes()).await.0.expect("sent");
                stream.shutdown_send().expect("connected");
                let mut received = Vec::new();
                while let Some(lease) = stream.recv().await.expect("no reset") {
                    received.extend_from_slice(&lease);
                }
                received == bytes()
            })
        });
        sim.run_until_idle().expect("no wake is lost");
        assert!(server.lock().expect("whole").is_some(), "seed {seed}");
        assert!(clients.iter().all(|client| *client.lock().expect("whole") == Some(true)));
        end(sim);
    }
}

#[test]
fn what_nothing_will_satisfy_keeps_nobody_awake_and_ends_with_its_shard() {
    for seed in 0..20 {
        let faults = Faults::drawn(&mut Rng::new(seed));
        let (outcome, sim) = run((seed, small(), faults), async |cx: &mut Cx<'_>| {
            let (one, _two) = UnixStream::pair(cx).expect("descriptors");
            // Failures of the ring may end it.
            one.recv().await.is_err()
        });
        assert!(matches!(outcome, None | Some(true)), "seed {seed}");
        end(sim);
    }
    let (outcome, sim) = run((0, small(), Faults::NONE), async |cx: &mut Cx<'_>| {
        let (one, _two) = UnixStream::pair(cx).expect("descriptors");
        let sent = one.send(vec![0; 1 << 22]).await.0;
        sent.is_ok()
    });
    assert_eq!((outcome, sim.held()[0].ops), (None, 1), "the peer reads nothing");
    end(sim);
}

#[test]
fn a_simulation_that_is_dropped_lets_go_of_its_operations() {
    let (one, two) = std::os::unix::net::UnixStream::pair().expect("descriptors");
    let faults = Faults { op_delay_max_ns: 20_000_000, ..Faults::NONE };
    let (outcome, sim) = run((3, small(), faults), async move |cx: &mut Cx<'_>| {
        UnixStream::from_std(cx, one).expect("works").recv().await.is_ok()
    });
    assert_eq!(outcome, None);
    drop(sim);
    let end = std::io::Read::read(&mut &two, &mut [0; 1]);
    assert_eq!(end.expect("an orderly end"), 0, "the other end is closed");
}

#[test]
fn operations_take_time_and_overtake_each_other() {
    let delay_ns = 5_000_000;
    let faults = Faults { op_delay_max_ns: delay_ns, ..Faults::NONE };
    let mut orders = [0; 2];
    for seed in 0..40 {
        let temp = Temp::new("order");
        let path = temp.0.clone();
        let (times, sim) = run((seed, small(), faults), async move |cx: &mut Cx<'_>| {
            let file = File::create(cx, &path).await.expect("made");
            let (mut one, mut two) = (pin!(file.sync_data()), pin!(file.sync_all()));
            let (mut first, mut second) = (None, None);
            std::future::poll_fn(|context| {
                if first.is_none() && one.as_mut().poll(context).is_ready() {
                    first = Some(cx.fresh_ns());
                }
                if second.is_none() && two.as_mut().poll(context).is_ready() {
                    second = Some(cx.fresh_ns());
                }
                first.zip(second).map_or(Poll::Pending, Poll::Ready)
            })
            .await
        });
        let (first_ns, second_ns) = times.expect("both end");
        orders[usize::from(first_ns > second_ns)] += 1;
        assert!(first_ns.max(second_ns) - BEGIN_NS <= 3 * delay_ns);
        end(sim);
    }
    assert!(orders.iter().all(|&count| count > 5), "{orders:?}");
}

#[test]
fn short_operations_are_repeated_until_all_is_moved() {
    let submitted = |faults| {
        let temp = Temp::new("short");
        let path = temp.0.clone();
        let (outcome, sim) = run((5, small(), faults), async move |cx: &mut Cx<'_>| {
            (through_pair(cx).await.expect("whole"), through_file(cx, path).await.expect("whole"))
        });
        assert_eq!(outcome.expect("ends"), (bytes(), bytes()));
        let submitted = sim.stats()[0].ops_submitted;
        end(sim);
        submitted
    };
    let few = submitted(Faults::NONE);
    let many = submitted(Faults { ops_short_ppm: ALL, ..Faults::NONE });
    assert!(many > 2 * few, "{many} and {few}");
}

#[test]
fn failed_operations_say_what_a_kernel_may_say() {
    let faults = Faults { ops_failed_ppm: ALL / 2, ..Faults::NONE };
    let (mut failed, mut whole) = (0, 0);
    for seed in 0..60 {
        let temp = Temp::new("failed");
        let path = temp.0.clone();
        let (outcome, sim) = run((seed, small(), faults), async move |cx: &mut Cx<'_>| {
            [through_pair(cx).await, through_file(cx, path).await]
        });
        for outcome in outcome.expect("ends") {
            match outcome {
                Ok(received) => {
                    assert_eq!(received, bytes(), "seed {seed}");
                    whole += 1;
                }
                Err(error) => {
                    assert!(error.io().is_some(), "{error}");
                    failed += 1;
                }
            }
        }
        assert_eq!((sim.held()[0].ops, sim.held()[0].buffers), (0, 0), "seed {seed}");
        end(sim);
    }
    assert!(failed > 20 && whole > 0, "{failed} failed, {whole} were whole");
}

/// Is always ready.
struct Busy;

impl Agent for Busy {
    type Msg = ();

    async fn on(&mut self, (): (), cx: &mut Cx<'_>) -> Result<(), Stop> {
        cx.me::<Self>().try_send(cx, ()).map_err(|_| Stop)
    }
}

#[test]
fn a_busy_shard_enters_for_its_operations() {
    let faults = Faults { op_delay_max_ns: 20_000, ..Faults::NONE };
    let mut sim = start(3, small(), faults);
    let busy = sim.spawn_on(0, || Busy).expect("room");
    assert_eq!(sim.run_on(0, move |cx| busy.try_send(cx, ())), Ok(Ok(())));
    let outcome = begin(&mut sim, 0, through_pair);
    sim.run_for(5_000_000).expect("no wake is lost");
    let outcome = outcome.lock().expect("whole").take();
    assert_eq!(outcome.expect("ends within 5 ms").expect("whole"), bytes());
}

#[test]
fn what_does_not_fit_the_queue_waits_for_the_next_call() {
    for uring_entries in [1, 2] {
        let config = Config { uring_entries, ..small() };
        let faults =
            Faults { ops_unqueued_ppm: 400_000, submits_failed_ppm: 400_000, ..Faults::NONE };
        let (outcome, sim) = run((7, config, faults), through_pair);
        assert_eq!(outcome.expect("ends").expect("whole"), bytes());
        end(sim);
    }
}

#[test]
fn a_cancellation_may_come_too_late_and_loses_no_byte() {
    for cancels_late_ppm in [0, ALL] {
        let faults = Faults { cancels_late_ppm, op_delay_max_ns: 300_000, ..Faults::NONE };
        for seed in 0..20 {
            let (kept, sim) = run((seed, small(), faults), async |cx: &mut Cx<'_>| {
                let (one, two) = UnixStream::pair(cx).expect("descriptors");
                assert!(poll_once(one.recv()).await.is_none());
                let (three, _four) = UnixStream::pair(cx).expect("descriptors");
                assert!(poll_once(three.recv()).await.is_none());
                two.send(b"kept").await.0.expect("sent");
                drop(three);
                one.recv().await.expect("comes").expect("no end").to_vec()
            });
            assert_eq!(kept.expect("ends"), b"kept");
            assert_eq!((sim.held()[0].ops, sim.held()[0].buffers), (0, 0), "seed {seed}");
            assert!(sim.stats()[0].ops_cancelled > 0);
            end(sim);
        }
    }
}

#[test]
fn every_kind_of_receive_carries_the_same_bytes() {
    let kinds = [
        Faults { no_multishot_recv: true, no_multishot_accept: true, ..Faults::NONE },
        Faults { lends_refused_ppm: ALL, ..Faults::NONE },
        Faults { streams_ended_ppm: ALL, ..Faults::NONE },
        Faults::NONE,
    ];
    for faults in kinds {
        for buffers in [1, 2, 16] {
            let config = Config { buffers, ..small() };
            let (outcome, sim) = run((9, config, faults), through_pair);
            assert_eq!(outcome.expect("ends").expect("whole"), bytes(), "{faults:?}");
            end(sim);
        }
    }
}

#[test]
fn a_receive_that_finds_no_buffer_waits_for_one() {
    let config = Config { buffers: 2, ..small() };
    let (outcome, sim) = run((1, config, Faults::NONE), async |cx: &mut Cx<'_>| {
        let (one, two) = UnixStream::pair(cx).expect("descriptors");
        two.send(bytes()).await.0.expect("sent");
        let first = one.recv().await.expect("comes").expect("no end");
        let second = one.recv().await.expect("comes").expect("no end");
        assert!(poll_once(one.recv()).await.is_none());
        let soon_ns = cx.fresh_ns() + 1_000_000;
        cx.sleep_until(soon_ns).await.expect("room");
        assert!(poll_once(one.recv()).await.is_none(), "no buffer is free");
        let mut count = first.len() + second.len();
        drop((first, second));
        while count < LEN {
            count += one.recv().await.expect("comes").expect("no end").len();
        }
    });
    assert!(outcome.is_some() && sim.stats()[0].ops_starved > 0);
    end(sim);
}

/// A pair of streams that ask for sends without a copy.
fn tcp_pair(cx: &mut Cx<'_>) -> (TcpStream, TcpStream) {
    let (one, two) = std::os::unix::net::UnixStream::pair().expect("descriptors");
    let tcp = |end| std::net::TcpStream::from(OwnedFd::from(end));
    let stream = |cx: &mut Cx<'_>, end| TcpStream::from_std(cx, tcp(end)).expect("works");
    (stream(cx, one), stream(cx, two))
}

#[test]
fn a_send_without_a_copy_comes_back_when_the_kernel_lets_go_of_its_buffer() {
    let delay_ns = 1_000_000;
    for no_send_zc in [false, true] {
        let faults = Faults { no_send_zc, op_delay_max_ns: delay_ns, ..Faults::NONE };
        let config = Config { buffer_bytes: 16_384, ..small() };
        let (freed, sim) = run((11, config, faults), async |cx: &mut Cx<'_>| {
            let (one, two) = tcp_pair(cx);
            let (sent, buffer) = one.send(vec![7; 10_000]).await;
            assert_eq!((sent.expect("sent"), buffer.len()), (10_000, 10_000));
            drop(one);
            let mut count = 0;
            while let Some(lease) = two.recv().await.expect("no reset") {
                count += lease.len();
            }
            count
        });
        assert_eq!(freed, Some(10_000));
        let freed = sim.trace.count(|what| matches!(what, What::Freed(calls::Kind::Send)));
        assert_eq!(freed, u64::from(!no_send_zc));
        end(sim);
    }
}

#[test]
fn a_connect_waits_for_room_among_those_that_wait_to_be_accepted() {
    let temp = Temp::new("backlog");
    let listener = std::os::unix::net::UnixListener::bind(&temp.0).expect("a free path");
    rustix::net::listen(&listener, 0).expect("listens");
    let mut sim = start(2, small(), Faults::NONE);
    let clients = [0, 1].map(|shard| {
        let path = temp.0.clone();
        begin(&mut sim, shard, async move |cx: &mut Cx<'_>| {
            UnixStream::connect(cx, &path).await.expect("listens");
        })
    });
    let connected =
        || clients.iter().filter(|client| client.lock().expect("whole").is_some()).count();
    sim.run_until_idle().expect("no wake is lost");
    assert_eq!(connected(), 1, "one waits for room and keeps nobody awake");
    drop(listener.accept().expect("one has come"));
    sim.run_on(0, |_| ()).expect("lives");
    sim.run_until_idle().expect("no wake is lost");
    assert_eq!(connected(), 2);
    end(sim);
}

#[test]
fn tcp_works_over_loopback() {
    let mut sim = start(2, small(), Faults::NONE);
    let outcome = begin(&mut sim, 0, async |cx: &mut Cx<'_>| {
        let any = "127.0.0.1:0".parse().expect("an address");
        let listener = TcpListener::bind(cx, any).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let client = TcpStream::connect(cx, address).await.expect("listens");
        let server = listener.accept().await.expect("connects");
        client.send(bytes()).await.0.expect("sent");
        drop(client);
        let mut received = Vec::new();
        while let Some(lease) = server.recv().await.expect("no reset") {
            received.extend_from_slice(&lease);
        }
        let refused = TcpStream::connect(cx, "127.0.0.1:1".parse().expect("an address")).await;
        (received, refused.expect_err("nobody listens").io().and_then(std::io::Error::raw_os_error))
    });
    sim.run_until_idle().expect("no wake is lost");
    // On a crowded host the kernel may do its part later, on a thread of its own: a simulation at rest does not wait.
    for _ in 0..5_000 {
        if outcome.lock().expect("nobody panics under it").is_some() {
            break;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(1));
        sim.run_on(0, |_| ()).expect("lives");
        sim.run_until_idle().expect("no wake is lost");
    }
    let outcome = outcome.lock().expect("nobody panics under it").take();
    assert_eq!(outcome.expect("ends"), (bytes(), Some(libc::ECONNREFUSED)));
    assert!(!sim.is_exact(), "TCP goes by the time of day");
    assert!(sim.place().to_string().contains("may not repeat"));
    end(sim);
}

#[test]
fn a_lost_completion_is_an_operation_that_never_ends() {
    let faults = Faults { completions_lost_ppm: ALL, ..Faults::NONE };
    let (outcome, mut sim) = run((1, small(), faults), through_pair);
    assert!(outcome.is_none() && sim.held()[0].ops > 0);
    let report = sim.shutdown().expect("ends");
    assert!(report.shards[0].ops_leaked > 0);
}

#[test]
fn an_overstated_count_is_bytes_that_are_not_there() {
    let lies = Faults { ops_short_ppm: ALL, counts_overstated_ppm: ALL, ..Faults::NONE };
    let temp = Temp::new("overstated");
    let path = temp.0.clone();
    let (outcome, sim) = run((1, small(), lies), async move |cx: &mut Cx<'_>| {
        let file = File::create(cx, &path).await.expect("made");
        file.write_at(bytes(), 0).await.0.expect("says so")
    });
    assert_eq!(outcome, Some(LEN));
    assert!(std::fs::metadata(&temp.0).expect("made").len() < LEN as u64);
    end(sim);
}

/// A kernel finds what a table may not do.
#[test]
fn what_a_shard_takes_from_its_ring_is_found() {
    let config = small();
    let pool = Pool::new(config.buffers, config.buffer_bytes);
    assert!(pool.has_memory());
    let air = &mut Air::new(1, Rng::new(1), Faults::NONE);
    let table = &mut Table::new(&config, Rc::clone(&pool));
    let body = || {
        let (op, file, payload) = (Op::Recv { multi: false }, None, crate::op::Payload::None);
        crate::op::Body { op, file, payload }
    };
    let key = table.open_recv(body()).expect("room");
    let mut kernel = Kernel::new(&Faults::NONE);
    kernel.begin(key, calls::Kind::Recv, None, air);
    let given_up = kernel.serve(table, air).expect_err("it is not in flight");
    assert!(given_up.contains("given up"), "{given_up}");
    let mut kernel = Kernel::new(&Faults::NONE);
    assert!(kernel.lend(&pool, air));
    assert_eq!(kernel.serve(table, air), Ok(None));
    kernel.give(&[3]);
    let twice = kernel.serve(table, air).expect_err("it has never had it");
    assert!(twice.contains("twice"), "{twice}");
}
