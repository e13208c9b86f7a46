//! The second process of a subject, with half of its responders: in a network namespace of its own, by a cable from the
//! subject's, or beside it with a proxy in between.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use tailbeam_harness::chaos::board::Board;
use tailbeam_harness::chaos::host::helper::Helper;
use tailbeam_harness::chaos::host::{
    Groups, Host, Injector, Journal, On, Run, Step, Subject, VethPair,
};
use tailbeam_harness::chaos::record::Check;
use tailbeam_harness::remote::{HomeConfig, HomeReport, Lines, begin};
use tailbeam_probes::clock;

use super::act::open_files;
use super::checks::same;
use super::stage::reader;

/// Port of its first core.
const PORT: u16 = 7_001;
/// How long a proxy may take to listen, ns.
const PROXY_NS: u64 = 10_000_000_000;
/// How long it may take to end when the subject has, ms.
const END_MS: u64 = 20_000;

/// It lives.
pub(super) struct Peer {
    subject: Subject,
    lines: Lines,
    /// The cable to it; none when it is beside the subject.
    pair: Option<VethPair>,
    pub(super) addresses: Vec<SocketAddr>,
    /// What it had open when all served.
    opened: Option<Result<u64, String>>,
    /// What it said on stderr.
    err: JoinHandle<String>,
}

impl Peer {
    /// Starts it: `apart`, in a network namespace of its own at the end of a cable, or on the loopback beside the subject.
    pub(super) fn start(
        program: &std::path::Path,
        (host, groups): (&Host, &Groups),
        journal: &mut Journal,
        (home, apart): (&HomeConfig, bool),
    ) -> Result<Self, String> {
        let pair = apart.then(|| host.veth_pair());
        let mut config = home.clone();
        if let Some(pair) = &pair {
            let on = On { host, groups, process: None, helper: None };
            let steps = Injector::NetPair { pair: pair.clone() }
                .steps(&on)
                .map_err(|gone| gone.cause.to_string())?;
            journal.perform_all(&steps).map_err(|error| error.to_string())?;
            let [_, address] = &pair.addresses;
            config.ip = address.parse().map_err(|_| format!("{address} is no address"))?;
            config.port = PORT;
        }
        let mut run = Run::new(program, &["second"]);
        run.namespace = pair.as_ref().map(|pair| pair.namespaces[1].clone());
        let pipes = |command: &mut Command| {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        };
        let mut subject =
            Subject::start(journal, &run, pipes).map_err(|error| error.to_string())?;
        let child = subject.child();
        let lines = Lines::of(child.stdout.take().ok_or("it has no stdout")?);
        let err = reader(child.stderr.take());
        let stdin = child.stdin.as_mut().ok_or("it has no stdin")?;
        let begun = begin(&config, stdin, &lines);
        let mut peer = Self { subject, lines, pair, addresses: Vec::new(), opened: None, err };
        match begun {
            Ok(addresses) => {
                peer.addresses = addresses;
                Ok(peer)
            }
            Err(why) => Err(peer.fallen(&why)),
        }
    }

    /// Why it does not serve, with what it printed.
    fn fallen(mut self, why: &str) -> String {
        // One that has ended cannot be killed, and has said what it had to say.
        let _ = self.subject.kill();
        let said = self.err.join().unwrap_or_default();
        let said: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        format!("the second process: {why}; {}", said.join("; "))
    }

    /// What it has open now is what it needs.
    pub(super) fn look(&mut self) {
        self.opened = Some(open_files(self.subject.process()));
    }

    /// Starts a proxy beside it, by which all of it is reached from then on.
    pub(super) fn by_proxy(
        &mut self,
        host: &Host,
        board: &Board,
        journal: &mut Journal,
        life_ms: u64,
    ) -> Result<(), String> {
        let to = *self.addresses.first().ok_or("it listens nowhere")?;
        let listen = SocketAddr::new(to.ip(), 0);
        let proxy = Helper::Proxy { listen, to, board: board.path(), life_ms };
        let mut run = proxy.started_by(&host.launcher);
        run.namespace = self.pair.as_ref().map(|pair| pair.namespaces[1].clone());
        journal.perform_all(&[Step::Start { run }]).map_err(|error| error.to_string())?;
        let until_ns = clock::monotonic_ns() + PROXY_NS;
        while clock::monotonic_ns() < until_ns {
            if let Some(port) = board.proxy_port() {
                self.addresses = vec![SocketAddr::new(to.ip(), port)];
                return Ok(());
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        Err("the proxy does not listen".to_owned())
    }

    /// The namespace of the subject.
    pub(super) fn near(&self) -> Option<&str> {
        self.pair.as_ref().map(|pair| pair.namespaces[0].as_str())
    }

    /// Ends it, when the subject has ended: it must have lived, go by itself, and have been asked something.
    pub(super) fn end(mut self) -> Vec<Check> {
        let name = "the second process lives, and goes when it is told to";
        let alive = self.subject.process().is_alive();
        let now = open_files(self.subject.process());
        let before = self.opened.take().unwrap_or_else(|| Err("nobody looked".to_owned()));
        let left = same("no descriptor is left in the second process", before, now);
        self.subject.child().stdin = None;
        let said = self.lines.next(END_MS * 1_000_000).unwrap_or_default();
        let ended = self.subject.ends_within(END_MS).ok().flatten();
        let text = ended.map_or_else(|| "it had to be killed".to_owned(), |how| how.to_string());
        let goes = Check::seen(name, alive && ended.is_some_and(|how| how.success()), text);
        let name = "the second process has answered";
        let answered = match serde_json::from_str::<HomeReport>(&said) {
            Ok(of) => {
                let text = format!(
                    "asked {}, answered {}, without a connection {}, {} connections and {} that said nothing",
                    of.asked, of.answered, of.undeliverable, of.connections, of.unheard
                );
                Check::seen(name, of.answered > 0 && of.refused == 0, text)
            }
            Err(_) => Check::unknown(name, "it did not say what it did"),
        };
        vec![goes, answered, left]
    }
}
