//! TCP echo over loopback: a server on the first core, its clients on the second, in a process each.
//!
//! The child of a round is the client. It starts the server as a process of its own, makes all connections, and
//! then keeps one request outstanding on each. Whose client that is, `--client` says: each peer's own, or one
//! peer's for all, so that only the servers differ.

mod monoio;
mod server;
mod sockets;
mod tailbeam;
mod tokio;

use std::net::SocketAddr;

use crate::Args;
use crate::peers::Peer;
use crate::sheet::Sheet;

pub(crate) use server::{Server, serve};

/// Bytes of a request and of its answer.
pub(crate) const BYTES: usize = 64;
/// Connections that are being made at once, so that no listen queue overflows.
const CONNECTORS: u32 = 64;
/// Connections that may wait in the kernel of a server, where a peer lets it be said.
const BACKLOG: u32 = 4_096;
/// Bytes that a server takes at once.
const TAKEN: usize = 4_096;

/// What the connections of a client share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) core: usize,
    pub(crate) server: SocketAddr,
    pub(crate) connections: u32,
    pub(crate) sheet: &'static Sheet,
}

/// Whose client asks the server of `peer`.
pub(crate) const fn client_of(peer: Peer, args: &Args) -> Peer {
    match args.client {
        Some(client) => client,
        None => peer,
    }
}

/// Serves on this core, on a thread of its own, until the process ends; `say` is told where.
pub(crate) fn serve_on(
    peer: Peer,
    core: usize,
    say: impl FnOnce(SocketAddr) + Send + 'static,
) -> Result<(), String> {
    match peer {
        Peer::TokioCt => sockets::serve::<tokio::Tokio>(core, say),
        Peer::Tailbeam => tailbeam::serve(core, say),
        Peer::Monoio => sockets::serve::<monoio::Monoio>(core, say),
        _ => Err(none_of_it()),
    }
}

/// Makes all connections and lets them begin.
pub(crate) fn ask(peer: Peer, load: Load) -> Result<(), String> {
    match peer {
        Peer::TokioCt => sockets::ask::<tokio::Tokio>(load),
        Peer::Tailbeam => tailbeam::ask(load),
        Peer::Monoio => sockets::ask::<monoio::Monoio>(load),
        _ => Err(none_of_it()),
    }
}

/// Whether there is something to run.
pub(crate) const fn has(peer: Peer) -> bool {
    matches!(peer, Peer::TokioCt | Peer::Tailbeam | Peer::Monoio)
}

fn none_of_it() -> String {
    "no echo is written for it here".to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use clap::ValueEnum as _;

    use super::*;
    use crate::{clock, place};

    #[test]
    fn every_connection_has_its_answers_from_every_pair_of_server_and_client() {
        // Two CPUs are not needed for this, and one is always there.
        let cores = place::cores().unwrap_or([0, 0]);
        let all = || Peer::value_variants().iter().copied().filter(|peer| has(*peer));
        for (server, client) in all().flat_map(|server| all().map(move |client| (server, client))) {
            let (told, at) = mpsc::channel();
            let say = move |address| told.send(address).expect("the test waits");
            serve_on(server, cores[0], say).expect("it serves");
            let address = at.recv().expect("it listens");
            let sheet = Box::leak(Box::new(Sheet::new(100)));
            sheet.warmed_up();
            let load = Load { core: cores[1], server: address, connections: 100, sheet };
            ask(client, load).expect("it connects");
            while sheet.counts().contains(&0) {
                assert_eq!(sheet.refusals(), 0, "{client:?} lost a connection to {server:?}");
                clock::sleep(Duration::from_millis(1));
            }
            sheet.close();
            assert!(sheet.latency().count >= 100);
        }
        assert!(!has(Peer::Spsc) && ask(Peer::Spsc, no_load()).is_err());
    }

    fn no_load() -> Load {
        let sheet = Box::leak(Box::new(Sheet::new(1)));
        Load { core: 0, server: ([127, 0, 0, 1], 1).into(), connections: 1, sheet }
    }
}
