//! Half of the responders behind TCP: every request ends once, the connection may go and come back, and what it took
//! with it expires and is said to have been lost on that hop.
#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

mod common;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tailbeam_harness::drive::{self, Control, LogHome};
use tailbeam_harness::evidence::{Store, read_latency, read_run};
use tailbeam_harness::load::{Ask, Secure, Workload};
use tailbeam_harness::plan::{Plan, Responders, Span};
use tailbeam_harness::remote::{Home, HomeConfig, HomeReport, Second};
use tailbeam_harness::report::latency::{Band, Holds, Question, build};
use tailbeam_harness::verdict::Outcomes;
use tailbeam_probes::clock;
use tailbeam_probes::record::latency::{CARRIED, Exemplar, Stage};

const MS: u64 = 1_000_000;
const SECRET: [u8; 32] = [5; 32];
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

static ALONE: Mutex<()> = Mutex::new(());

fn pause(ms: u64) {
    let end_ns = clock::monotonic_ns() + ms * MS;
    while let Some(left) = end_ns.checked_sub(clock::monotonic_ns()).filter(|&left| left > 0) {
        std::thread::park_timeout(Duration::from_nanos(left));
    }
}

fn plan(seconds: u64) -> Plan {
    let mut plan = common::plan(200, seconds);
    plan.workload = Secure::NAME.to_owned();
    (plan.think, plan.delay) = (Span::ms(50, 150), Span::ms(5, 20));
    plan.timeout_ns = 500 * MS;
    plan.protocol.responders = Responders::Tcp;
    plan
}

struct Ran {
    dir: std::path::PathBuf,
    all: Outcomes,
    counts: HashMap<String, u64>,
    _root: tempfile::TempDir,
}

impl Ran {
    fn count(&self, name: &str) -> u64 {
        *self.counts.get(name).unwrap_or_else(|| panic!("no {name:?} in {:?}", self.counts.keys()))
    }
}

/// Runs a plan whose second process listens at these addresses.
fn run(plan: &Plan, addresses: Vec<SocketAddr>) -> Ran {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let log_home = Some(LogHome { dir: root.path().join("logs"), secret: SECRET });
    let second = Some(Second::At(addresses));
    let control = Control { second, log_home, ..Control::default() };
    let dir = drive::run::<Secure>(plan, &store, &control, &mut |_| {}).unwrap();
    let run = read_run(&dir).unwrap();
    let mut all = Outcomes::default();
    for second in run.windows.iter().flat_map(|window| &window.seconds) {
        all.merge(&second.counts.outcomes);
    }
    let end = run.end.as_ref().unwrap();
    all.open_at_stop += end.open_at_stop;
    all.lost += end.lost;
    assert_eq!(all.sum(), all.attempts, "{all:?}");
    assert!(end.drained, "something was left over");
    let counts = end.protocol.iter().map(|of| (of.name.clone(), of.count)).collect();
    Ran { dir, all, counts, _root: root }
}

fn home(plan: &Plan, port: u16) -> Home {
    Home::start(HomeConfig::of(plan, SECRET, (HERE, port))).unwrap()
}

/// A port of which so many in a row are free; another program may take them, and then the test says so.
fn port(count: u16) -> u16 {
    loop {
        let first = TcpListener::bind((HERE, 0)).unwrap();
        let port = first.local_addr().unwrap().port();
        let Some(last) = port.checked_add(count) else { continue };
        if (port + 1..last).all(|port| TcpListener::bind((HERE, port)).is_ok()) {
            return port;
        }
    }
}

fn ready() -> Option<std::sync::MutexGuard<'static, ()>> {
    if !common::rings::has_rings() {
        return None;
    }
    Some(ALONE.lock().unwrap_or_else(PoisonError::into_inner))
}

#[test]
fn half_of_the_answers_come_from_the_second_process_and_all_add_up() {
    let Some(_alone) = ready() else { return };
    let mut plan = plan(3);
    (plan.protocol.decline, plan.protocol.cancel) = (0.1, 0.05);
    let home = home(&plan, 0);
    let ran = run(&plan, home.addresses().to_vec());
    let report: HomeReport = home.end();
    let all = ran.all;
    assert!(all.ok > 1_000 && all.declined > 50 && all.cancelled > 10, "{all:?}");
    assert_eq!((all.error, all.refused, all.lost, all.expired), (0, 0, 0, 0), "{all:?}");
    let carried = ran.count("second process: requests carried");
    let share = carried as f64 / all.attempts as f64;
    assert!((0.4..0.6).contains(&share), "{carried} of {}", all.attempts);
    assert_eq!((report.asked, report.refused, report.full), (carried, 0, 0), "{report:?}");
    assert_eq!(report.answered + report.ended, report.asked, "{report:?}");
    let parts = ["answers", "requests given up", "requests withdrawn"];
    let parts = parts.map(|name| ran.count(&format!("second process: {name}")));
    assert_eq!(parts.iter().sum::<u64>(), carried, "each that was carried has one end");
    assert!(parts[2] > 10, "{parts:?}");
    // One that was withdrawn while its answer was on the way has its answer, for nobody.
    let came =
        ran.count("second process: answers") + ran.count("second process: answers for nobody");
    assert_eq!(came, report.answered);
    assert_eq!(ran.count("second process: requests given up"), 0);
    assert_eq!(ran.count("owner refused: signature"), 0);
    let ended = ["accepted", "declined", "cancelled", "expired"].map(|name| ran.count(name));
    assert_eq!(ran.count("created"), ended.iter().sum::<u64>() + ran.count("pending at the end"));
}

#[test]
fn the_way_to_the_second_process_is_a_stage_of_its_own_and_the_sum_holds() {
    let Some(_alone) = ready() else { return };
    let plan = plan(3);
    let home = home(&plan, 0);
    let ran = run(&plan, home.addresses().to_vec());
    let served = home.end();
    assert!(served.answered > 1_000, "{served:?}");
    let (windows, damage) = read_latency(&ran.dir).unwrap();
    assert!(damage.is_empty(), "{damage:?}");
    let whole: Vec<_> = windows.iter().flat_map(|window| &window.exemplars).collect();
    let (there, here): (Vec<&Exemplar>, Vec<&Exemplar>) =
        whole.into_iter().partition(|of| of.stamps.polls == CARRIED && of.stamps.answered_ns > 0);
    assert!(there.len() > 10 && here.len() > 10, "{} and {}", there.len(), here.len());
    assert!(there.iter().all(|of| of.stamps.suspended_ns > 0), "a way takes time");
    assert!(here.iter().all(|of| of.stamps.suspended_ns == 0), "and here there is none");
    let report = build(&ran.dir, &Question::default()).unwrap();
    let way = |band: &Band| {
        let mut stages = band.composition.stages.iter();
        stages.any(|of| of.stage == Stage::Suspended.name() && of.mean_ns > 0.0)
    };
    // About half of the requests go there: among 40 none does once in 2^40 runs, but the
    // slowest band holds five or so, which one stall of this host may have picked.
    let many: Vec<&Band> = report.bands.iter().filter(|of| of.composition.count >= 40).collect();
    assert!(many.len() >= 2 && many.iter().all(|of| way(of)), "{:#?}", report.bands);
    assert!(report.conservation.checks.iter().all(|of| of.holds != Holds::Fail), "{report:#?}");
}

#[test]
fn a_connection_that_goes_takes_requests_with_it_and_the_next_one_serves() {
    let Some(_alone) = ready() else { return };
    let plan = plan(8);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let port = port(u16::try_from(cores).unwrap());
    let first = home(&plan, port);
    let addresses = first.addresses().to_vec();
    let (ran, before, after) = std::thread::scope(|scope| {
        let homes = scope.spawn(|| {
            pause(2_500);
            let before = first.end();
            pause(1_000);
            let second = home(&plan, port);
            pause(6_000);
            (before, second.end())
        });
        let ran = run(&plan, addresses);
        let (before, after) = homes.join().unwrap();
        (ran, before, after)
    });
    let all = ran.all;
    assert!(before.answered > 300 && after.answered > 300, "{before:?} {after:?}");
    let parts = ["answers", "requests given up", "requests withdrawn"];
    let parts = parts.map(|name| ran.count(&format!("second process: {name}")));
    assert_eq!(parts.iter().sum::<u64>(), ran.count("second process: requests carried"));
    for of in [before, after] {
        // Those that an agent still held when the process ended are in none.
        assert!(of.answered + of.undeliverable + of.full <= of.asked, "{of:?}");
    }
    assert!(all.expired > 100 && all.ok > 1_000, "{all:?}");
    assert_eq!((all.error, all.lost), (0, 0), "{all:?}");
    assert_eq!(ran.count("second process: connections lost"), cores as u64);
    assert_eq!(ran.count("second process: connections"), 2 * cores as u64);
    let gone = ran.count("second process: requests given up")
        + ran.count("second process: requests not carried");
    // Those that had less than their time left when the connection went may have been answered by nobody too.
    assert!(gone >= all.expired, "{gone} on the hop, {} expired", all.expired);
}

#[test]
fn who_cannot_answer_elsewhere_and_who_is_nowhere_is_said() {
    let Some(_alone) = ready() else { return };
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let plan = plan(1);
    let none = drive::run::<Secure>(&plan, &store, &Control::default(), &mut |_| {});
    assert!(none.unwrap_err().to_string().contains("no second process"));
    let second = || Some(Second::At(vec![SocketAddr::new(HERE, 1)]));
    let control = Control { second: second(), ..Control::default() };
    let wrong = drive::run::<Ask>(&plan, &store, &control, &mut |_| {}).unwrap_err().to_string();
    assert!(wrong.contains(Ask::NAME), "{wrong}");
    let nobody = drive::run::<Secure>(&plan, &store, &control, &mut |_| {}).unwrap_err();
    assert!(nobody.to_string().contains("no hello"), "{nobody}");
}

#[test]
fn another_fleet_is_refused() {
    let Some(_alone) = ready() else { return };
    let plan = plan(1);
    let mut other = plan.clone();
    other.agents += 2;
    let home = home(&other, 0);
    let (root, second) = (tempfile::tempdir().unwrap(), Second::At(home.addresses().to_vec()));
    let store = Store::open(root.path()).unwrap();
    let control = Control { second: Some(second), ..Control::default() };
    let refused = drive::run::<Secure>(&plan, &store, &control, &mut |_| {});
    assert!(refused.unwrap_err().to_string().contains("no hello"));
    let report = home.end();
    assert!(report.connections == 0 && report.refused > 0, "{report:?}");
}
