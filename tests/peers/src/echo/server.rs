//! The server's process: it says where it listens, and ends with the one that has started it.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread;

use super::serve_on;
use crate::child::name;
use crate::peers::Peer;
use crate::place;
use crate::usage::{self, Used};

/// A server that runs; dropped, it ends.
#[derive(Debug)]
pub(crate) struct Server {
    process: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts a peer's server.
    pub(crate) fn start(peer: Peer) -> Result<Self, String> {
        let spawn = || {
            Command::new(std::env::current_exe()?)
                .args(["--serve", &name(&peer)])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
        };
        let mut process = spawn().map_err(|error: io::Error| error.to_string())?;
        let mut text = String::new();
        let said = process.stdout.take().map(|out| BufReader::new(out).read_line(&mut text));
        match text.trim().parse() {
            Ok(address) => Ok(Self { process, address }),
            Err(_) => {
                let _ = process.kill();
                let _ = process.wait();
                Err(format!("the server said {text:?}, {said:?}"))
            }
        }
    }

    /// What it has used so far.
    pub(crate) fn used(&self) -> Option<Used> {
        usage::of(self.process.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Serves until standard input ends, which it does when the client's process does.
pub(crate) fn serve(peer: Peer) -> Result<(), String> {
    let [core, _] = place::cores()?;
    thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0)
    });
    let say = |address: SocketAddr| {
        // Whoever does not read it has gone, and so goes this process.
        let _ = writeln!(io::stdout(), "{address}");
    };
    serve_on(peer, core, say)?;
    loop {
        thread::park();
    }
}
