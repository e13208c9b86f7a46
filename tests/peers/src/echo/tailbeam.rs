//! Ours, as the runtime's examples have it.

use std::cell::{Cell, RefCell};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::mpsc;

use tailbeam_runtime::net::{TcpListener, TcpStream};
use tailbeam_runtime::{Config, Cores, Cx, NoObserver, OpError, Runtime};

use super::{BYTES, CONNECTORS, Load};
use crate::sheet::Tally;

fn start(core: usize) -> Result<Runtime, String> {
    let config = Config { cores: Cores::List(vec![core]), ..Config::default() };
    Runtime::start(config, |_| NoObserver).map_err(|error| error.to_string())
}

/// A server; its runtime lives as long as the process.
pub(super) fn serve(core: usize, say: impl FnOnce(SocketAddr)) -> Result<(), String> {
    let runtime = start(core)?;
    let listen = |cx: &mut Cx<'_>| -> Result<SocketAddr, String> {
        let text = |error: OpError| error.to_string();
        let listener = TcpListener::bind(cx, (Ipv4Addr::LOCALHOST, 0).into()).map_err(text)?;
        let address = listener.local_addr().map_err(text)?;
        let run = async move |cx: &mut Cx<'_>| accept(cx, listener).await;
        cx.spawn_with(run).map_err(|error| error.to_string())?;
        Ok(address)
    };
    say(runtime.run_on(0, listen).map_err(|error| error.to_string())??);
    std::mem::forget(runtime);
    Ok(())
}

async fn accept(cx: &mut Cx<'_>, listener: TcpListener) {
    while let Ok(stream) = listener.accept().await {
        if stream.set_nodelay(true).is_err() {
            continue;
        }
        // A connection that fails, or finds no room, ends alone; its client says so.
        drop(cx.spawn_with(async move |_: &mut Cx<'_>| drop(echo(stream).await)));
    }
}

async fn echo(stream: TcpStream) -> Result<(), OpError> {
    while let Some(received) = stream.recv().await? {
        stream.send(received).await.0?;
    }
    Ok(())
}

/// What the connectors share.
struct Connecting {
    streams: RefCell<Vec<TcpStream>>,
    left: Cell<u32>,
    told: mpsc::Sender<Result<(), String>>,
}

/// A client.
pub(super) fn ask(load: Load) -> Result<(), String> {
    let runtime = start(load.core)?;
    let (told, begun) = mpsc::channel();
    let connect = move |cx: &mut Cx<'_>| -> Result<(), String> {
        let (streams, left) = (RefCell::default(), Cell::new(CONNECTORS));
        let shared = Rc::new(Connecting { streams, left, told });
        for connector in 0..CONNECTORS {
            let count = (load.connections + CONNECTORS - 1 - connector) / CONNECTORS;
            let shared = Rc::clone(&shared);
            let run = async move |cx: &mut Cx<'_>| {
                if let Err(error) = connect(cx, count, load, &shared).await {
                    let _ = shared.told.send(Err(error.to_string()));
                }
            };
            cx.spawn_with(run).map_err(|error| error.to_string())?;
        }
        Ok(())
    };
    runtime.run_on(0, connect).map_err(|error| error.to_string())??;
    std::mem::forget(runtime);
    begun.recv().map_err(|_| "its connectors ended".to_owned())?
}

/// Makes `count` connections one after the other; the last connector lets all begin.
async fn connect(
    cx: &mut Cx<'_>,
    count: u32,
    load: Load,
    shared: &Connecting,
) -> Result<(), OpError> {
    for _ in 0..count {
        let stream = TcpStream::connect(cx, load.server).await?;
        stream.set_nodelay(true)?;
        shared.streams.borrow_mut().push(stream);
    }
    shared.left.set(shared.left.get() - 1);
    if shared.left.get() > 0 {
        return Ok(());
    }
    for (number, stream) in (0..).zip(shared.streams.take()) {
        let tally = Tally::new(load.sheet, number, 1);
        let run = async move |_: &mut Cx<'_>| {
            if requests(stream, tally).await.is_err() {
                load.sheet.refused();
            }
        };
        if cx.spawn_with(run).is_err() {
            load.sheet.refused();
        }
    }
    let _ = shared.told.send(Ok(()));
    Ok(())
}

async fn requests(stream: TcpStream, mut tally: Tally) -> Result<(), OpError> {
    let mut buffer = vec![7; BYTES];
    loop {
        tally.ask();
        let (sent, back) = stream.send(buffer).await;
        (buffer, _) = (back, sent?);
        let mut left = BYTES;
        while left > 0 {
            let eof = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
            left -= stream.recv().await?.ok_or_else(eof)?.len();
        }
        if !tally.answered() {
            return Ok(());
        }
    }
}
