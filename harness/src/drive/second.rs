//! The second process of a run: started and reached before its agents begin, left and ended when the load is over.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tailbeam_probes::clock;

use super::DriveError;
use super::controller::Controller;
use crate::evidence::records::CountRecord;
use crate::load::Workload;
use crate::plan::{Plan, Responders};
use crate::remote::{Hello, HomeConfig, HomeReport, Launched, Second};

/// How long all cores may take to reach it, ns.
const PATIENCE_NS: u64 = 10_000_000_000;

/// Refuses what cannot be: responders elsewhere of agents that can answer here only.
pub(super) fn check<W: Workload>(plan: &Plan, second: Option<&Second>) -> Result<(), DriveError> {
    if plan.protocol.responders == Responders::Here {
        return Ok(());
    }
    if !W::FAR {
        let cause = format!("workload {} answers in its own process only", W::NAME);
        return Err(DriveError::Second { cause, remedy: "name --workload elicitation" });
    }
    match second {
        Some(_) => Ok(()),
        None => {
            let cause = "this program has not said how it is started".to_owned();
            Err(DriveError::Second { cause, remedy: "set Control::second" })
        }
    }
}

impl<W: Workload> Controller<'_, W> {
    /// Starts the second process, if the plan has one and nobody else has, and reaches it from every core.
    pub(super) fn reach_second(&mut self) -> Result<(), DriveError> {
        if self.fleet.far.is_none() {
            return Ok(());
        }
        let first = self.fleet.far_from;
        let addresses = match &self.control.second {
            None => return Err(gone("nobody has said where it is".to_owned())),
            Some(Second::At(addresses)) => addresses.clone(),
            Some(Second::Launch(launch)) => {
                let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
                let config = HomeConfig::of(self.plan, self.secret, (ip, 0));
                let launched = launch.start(&config).map_err(gone)?;
                let addresses = launched.addresses.clone();
                self.second = Some(launched);
                addresses
            }
        };
        let hello = Hello { agents: self.fleet.agents, first };
        for shard in 0..self.shards {
            let address: SocketAddr = addresses[shard % addresses.len()];
            if !self.on(shard, move |cx| W::reach(address, hello, cx))? {
                return Err(gone("there was no room for a connection".to_owned()));
            }
        }
        self.wait_for_second(&addresses)
    }

    fn wait_for_second(&self, addresses: &[SocketAddr]) -> Result<(), DriveError> {
        let counts = self.fleet.far.as_deref().unwrap_or_default();
        let until_ns = clock::monotonic_ns() + PATIENCE_NS;
        while counts[..self.shards].iter().any(|core| core.up.load(Relaxed) == 0) {
            if self.stopping() {
                return Err(gone("the run was stopped before it was reached".to_owned()));
            }
            if clock::monotonic_ns() > until_ns {
                let s = PATIENCE_NS / 1_000_000_000;
                return Err(gone(format!(
                    "no hello from {addresses:?} in {s} s: nobody listens there, or it serves another run"
                )));
            }
            std::thread::park_timeout(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Ends the connections, and waits until they have.
    pub(super) fn leave_second(&self) -> Result<(), DriveError> {
        let Some(counts) = self.fleet.far.as_deref() else { return Ok(()) };
        for shard in 0..self.shards {
            self.on(shard, |_| W::leave())?;
        }
        let until_ns = clock::monotonic_ns() + PATIENCE_NS;
        while counts.iter().any(|core| core.up.load(Relaxed) != 0)
            && clock::monotonic_ns() < until_ns
        {
            std::thread::park_timeout(Duration::from_millis(2));
        }
        Ok(())
    }
}

fn gone(cause: String) -> DriveError {
    DriveError::Second { cause, remedy: "run again; what it printed on stderr may say more" }
}

/// Ends the second process that a run has started, and gives what it says of what it did.
pub(super) fn end(second: Option<Launched>) -> Vec<CountRecord> {
    let Some(second) = second else { return Vec::new() };
    let record = |name: &str, count| CountRecord { name: format!("second process: {name}"), count };
    match second.end() {
        Ok(report) => {
            let HomeReport { asked, answered, full, ended, undeliverable, cpu_ns, .. } = report;
            let HomeReport { refused, unheard, failed_accepts, .. } = report;
            let mut all = vec![
                record("was asked", asked),
                record("has answered", answered),
                record("had no room", full),
                record("was told of an end", ended),
                record("answers without a connection", undeliverable),
                record("connections refused", refused),
                record("connections that said nothing", unheard),
                record("connections that could not be taken", failed_accepts),
            ];
            all.extend(cpu_ns.map(|ns| record("CPU time, ns", ns)));
            all
        }
        // Not a figure: that there is none.
        Err(why) => vec![record(&format!("what it did is unknown: {why}"), 1)],
    }
}
