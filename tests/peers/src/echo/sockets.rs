//! Echo on executors whose tasks stay on their thread, and whose sockets take buffers by value or can be made to.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;

use super::{BYTES, CONNECTORS, Load, TAKEN};
use crate::place;
use crate::sheet::Tally;

/// An executor with TCP.
pub(super) trait Sockets: 'static {
    type Listener: 'static;
    type Stream: 'static;

    /// Runs what `make` makes on the calling thread until it ends.
    ///
    /// # Errors
    /// Why it cannot run here.
    fn run<F: Future<Output = ()> + 'static>(make: impl FnOnce() -> F) -> Result<(), String>;
    fn spawn(future: impl Future<Output = ()> + 'static);
    /// At a free port.
    fn listen() -> io::Result<(Self::Listener, SocketAddr)>;
    fn accept(listener: &Self::Listener) -> impl Future<Output = io::Result<Self::Stream>>;
    fn connect(address: SocketAddr) -> impl Future<Output = io::Result<Self::Stream>>;
    /// Sends all of a buffer.
    fn send(
        stream: &mut Self::Stream,
        buffer: Vec<u8>,
    ) -> impl Future<Output = (io::Result<()>, Vec<u8>)>;
    /// Receives what there is, behind what the buffer holds and into its spare room.
    fn recv(
        stream: &mut Self::Stream,
        buffer: Vec<u8>,
    ) -> impl Future<Output = (io::Result<usize>, Vec<u8>)>;
}

/// Runs `make` on a thread of its own, pinned to `core`; `told` says how it began.
fn run_on<S: Sockets, F: Future<Output = ()> + 'static>(
    core: usize,
    make: impl FnOnce(mpsc::Sender<Result<(), String>>) -> F + Send + 'static,
) -> Result<(), String> {
    let (told, begun) = mpsc::channel();
    thread::spawn(move || {
        place::pin(core);
        let failed = told.clone();
        if let Err(why) = S::run(move || make(told)) {
            let _ = failed.send(Err(why));
        }
    });
    begun.recv().unwrap_or_else(|_| Err("its thread ended at once".to_owned()))
}

/// A server.
pub(super) fn serve<S: Sockets>(
    core: usize,
    say: impl FnOnce(SocketAddr) + Send + 'static,
) -> Result<(), String> {
    run_on::<S, _>(core, move |told| async move {
        let listener = match S::listen() {
            Ok((listener, address)) => {
                say(address);
                let _ = told.send(Ok(()));
                listener
            }
            Err(error) => return drop(told.send(Err(error.to_string()))),
        };
        while let Ok(stream) = S::accept(&listener).await {
            // A connection that fails ends alone; its client says so.
            S::spawn(async move { drop(echo::<S>(stream).await) });
        }
    })
}

async fn echo<S: Sockets>(mut stream: S::Stream) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(TAKEN);
    loop {
        let (received, taken) = S::recv(&mut stream, buffer).await;
        if received? == 0 {
            return Ok(());
        }
        let (sent, taken) = S::send(&mut stream, taken).await;
        (buffer, _) = (taken, sent?);
        buffer.clear();
    }
}

/// A client.
pub(super) fn ask<S: Sockets>(load: Load) -> Result<(), String> {
    run_on::<S, _>(load.core, move |told| async move {
        let (streams, left) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(CONNECTORS)));
        for connector in 0..CONNECTORS {
            let count = (load.connections + CONNECTORS - 1 - connector) / CONNECTORS;
            let (streams, left, told) = (Rc::clone(&streams), Rc::clone(&left), told.clone());
            S::spawn(async move {
                for _ in 0..count {
                    match S::connect(load.server).await {
                        Ok(stream) => streams.borrow_mut().push(stream),
                        Err(error) => return drop(told.send(Err(error.to_string()))),
                    }
                }
                left.set(left.get() - 1);
                if left.get() == 0 {
                    begin::<S>(streams.take(), load);
                    let _ = told.send(Ok(()));
                }
            });
        }
        drop(told);
        std::future::pending::<()>().await;
    })
}

fn begin<S: Sockets>(streams: Vec<S::Stream>, load: Load) {
    for (number, stream) in (0..).zip(streams) {
        let tally = Tally::new(load.sheet, number, 1);
        S::spawn(async move {
            // Refusals are counted: a connection that broke makes the round show it.
            if requests::<S>(stream, tally).await.is_err() {
                load.sheet.refused();
            }
        });
    }
}

async fn requests<S: Sockets>(mut stream: S::Stream, mut tally: Tally) -> io::Result<()> {
    let mut buffer = vec![7; BYTES];
    loop {
        tally.ask();
        let (sent, taken) = S::send(&mut stream, buffer).await;
        (buffer, _) = (taken, sent?);
        buffer.clear();
        while buffer.len() < BYTES {
            let (received, taken) = S::recv(&mut stream, buffer).await;
            buffer = taken;
            if received? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        if !tally.answered() {
            return Ok(());
        }
    }
}
