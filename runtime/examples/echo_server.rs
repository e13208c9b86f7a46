//! A TCP server that sends back what it receives, on every allowed core:
//! `cargo run --release -p tailbeam-runtime --example echo_server -- --address 127.0.0.1:7878 --seconds 10`.
//! It ends by itself. `taskset -c 0` keeps it on one core.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use tailbeam_runtime::net::{ListenOptions, TcpListener, TcpStream};
use tailbeam_runtime::{Config, Cx, NoObserver, OpError, Runtime};

/// Sends back each buffer as it is, without a copy of its own, until the peer ends.
async fn echo(stream: TcpStream) -> Result<(), OpError> {
    while let Some(received) = stream.recv().await? {
        stream.send(received).await.0?;
    }
    Ok(())
}

async fn serve(cx: &mut Cx<'_>, listener: TcpListener) {
    // A failed accept (no descriptor left) must not become a busy loop.
    while let Ok(stream) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        // A connection that fails, or finds no room, ends alone.
        let run = async move |_: &mut Cx<'_>| drop(echo(stream).await);
        drop(cx.spawn_with(run));
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (mut address, mut seconds) = ("127.0.0.1:7878".to_owned(), 10);
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--address" => address = value,
            "--seconds" => seconds = value.parse()?,
            _ => return Err(format!("{name} is not known: --address, --seconds").into()),
        }
    }
    let address: SocketAddr = address.parse()?;
    // Connections stay open at the end: nothing to wait for.
    let config = Config { drain_ns: 10_000_000, ..Config::default() };
    let runtime = Runtime::start(config, |_| NoObserver)?;
    for shard in 0..runtime.shards() {
        let listen = move |cx: &mut Cx<'_>| -> Result<(), String> {
            let options = ListenOptions { reuse_port: true, ..ListenOptions::default() };
            let listener = TcpListener::bind_with(cx, address, options);
            let listener = listener.map_err(|error| error.to_string())?;
            let run = async move |cx: &mut Cx<'_>| serve(cx, listener).await;
            cx.spawn_with(run).map_err(|error| error.to_string())
        };
        runtime.run_on(shard, listen)??;
    }
    println!("listening at {address} on {} cores for {seconds} s", runtime.shards());
    std::thread::park_timeout(Duration::from_secs(seconds));
    for shard in runtime.stats() {
        println!(
            "core {}: {} operations, {} enters, {} parks, {} starved, busy {} ms",
            shard.core,
            shard.ops_submitted,
            shard.enters,
            shard.parks,
            shard.ops_starved,
            shard.busy_ns / 1_000_000
        );
    }
    let left: u64 = runtime.shutdown().shards.iter().map(|shard| shard.ops_leaked).sum();
    println!("ended, {left} operations left behind");
    Ok(())
}
