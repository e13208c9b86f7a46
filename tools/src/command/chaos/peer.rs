//! The second process of a subject, with half of its responders: in a network namespace of its own, by a cable from the
//! subject's.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;

use tailbeam_harness::chaos::board::Board;
use tailbeam_harness::chaos::host::helper::Helper;
use tailbeam_harness::chaos::host::{
    Groups, Host, Injector, Journal, On, Run, Step, Subject, VethPair,
};
use tailbeam_harness::chaos::record::Check;
use tailbeam_harness::remote::{HomeConfig, HomeReport};
use tailbeam_probes::clock;

/// Port of its first core.
const PORT: u16 = 7_001;
/// Longest line that it may say, bytes.
const LINE_MAX: u64 = 1 << 16;
/// How long a proxy may take to listen, ns.
const PROXY_NS: u64 = 10_000_000_000;
/// How long it may take to end when the subject has, ms.
const END_MS: u64 = 20_000;

/// It lives.
pub(super) struct Peer {
    subject: Subject,
    stdout: BufReader<ChildStdout>,
    pair: VethPair,
    pub(super) addresses: Vec<SocketAddr>,
}

impl Peer {
    /// Makes the namespaces and the cable, and starts it.
    pub(super) fn start(
        program: &std::path::Path,
        (host, groups): (&Host, &Groups),
        journal: &mut Journal,
        home: &HomeConfig,
    ) -> Result<Self, String> {
        let pair = host.veth_pair();
        let on = On { host, groups, process: None, helper: None };
        let steps = Injector::NetPair { pair: pair.clone() }
            .steps(&on)
            .map_err(|gone| gone.cause.to_string())?;
        journal.perform_all(&steps).map_err(|error| error.to_string())?;
        let [_, address] = &pair.addresses;
        let ip: IpAddr = address.parse().map_err(|_| format!("{address} is no address"))?;
        let config = HomeConfig { ip, port: PORT, ..home.clone() };
        let mut run = Run::new(program, &["second"]);
        run.namespace = Some(pair.namespaces[1].clone());
        let pipes = |command: &mut Command| {
            command.stdout(Stdio::piped()).stderr(Stdio::null());
        };
        let mut subject =
            Subject::start(journal, &run, pipes).map_err(|error| error.to_string())?;
        let stdout = subject.child().stdout.take().ok_or("it has no stdout")?;
        let (stdout, addresses) = (BufReader::new(stdout), Vec::new());
        let mut peer = Self { subject, stdout, pair, addresses };
        peer.begin(&config)?;
        Ok(peer)
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
        run.namespace = Some(self.pair.namespaces[1].clone());
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

    fn begin(&mut self, config: &HomeConfig) -> Result<(), String> {
        let mut line = serde_json::to_string(config).map_err(|error| error.to_string())?;
        line.push('\n');
        let stdin = self.subject.child().stdin.as_mut().ok_or("it has no stdin")?;
        stdin.write_all(line.as_bytes()).map_err(|error| error.to_string())?;
        let said = self.line();
        self.addresses = serde_json::from_str(&said)
            .map_err(|_| format!("the second process does not listen: {said:?}"))?;
        Ok(())
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        // What cannot be read is nothing that was said.
        let _ = self.stdout.by_ref().take(LINE_MAX).read_line(&mut line);
        line.trim().to_owned()
    }

    /// The namespace of the subject.
    pub(super) fn near(&self) -> &str {
        &self.pair.namespaces[0]
    }

    /// Ends it, when the subject has ended: it must have lived, go by itself, and have been asked something.
    pub(super) fn end(mut self) -> Vec<Check> {
        let name = "the second process lives, and goes when it is told to";
        let alive = self.subject.process().is_alive();
        self.subject.child().stdin = None;
        let said = self.line();
        let ended = self.subject.ends_within(END_MS).ok().flatten();
        let text = ended.map_or_else(|| "it had to be killed".to_owned(), |how| how.to_string());
        let goes = Check::seen(name, alive && ended.is_some_and(|how| how.success()), text);
        let name = "the second process has answered";
        let answered = match serde_json::from_str::<HomeReport>(&said) {
            Ok(of) => {
                let text = format!(
                    "asked {}, answered {}, without a connection {}, {} connections",
                    of.asked, of.answered, of.undeliverable, of.connections
                );
                Check::seen(name, of.answered > 0 && of.refused == 0, text)
            }
            Err(_) => Check::unknown(name, "it did not say what it did"),
        };
        vec![goes, answered]
    }
}
