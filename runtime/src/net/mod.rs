//! TCP and Unix sockets on the shard's ring.
//!
//! Sockets belong to the shard on which they are made and never leave it. Received data comes in buffers
//! of the shard's pool ([`Lease`]); a buffer to send is given away and comes back with the outcome, so that
//! a future may be dropped at any time. Each stream has a receiving and a sending side, which two futures
//! may use at the same time.
//!
//! ```
//! use tailbeam_runtime::net::{TcpListener, TcpStream};
//! use tailbeam_runtime::{Config, Cx, NoObserver, OpError, Runtime};
//!
//! async fn echo_once(cx: &mut Cx<'_>) -> Result<(), OpError> {
//!     let listener = TcpListener::bind(cx, "127.0.0.1:0".parse().unwrap())?;
//!     let client = TcpStream::connect(cx, listener.local_addr()?).await?;
//!     let server = listener.accept().await?;
//!     let (sent, _buffer) = client.send(b"hello").await;
//!     assert_eq!(sent?, 5);
//!     let hello = server.recv().await?.expect("not at its end");
//!     assert_eq!(&*hello, b"hello");
//!     let (sent, _lease) = server.send(hello).await;
//!     sent.map(drop)
//! }
//!
//! # if tailbeam_runtime::features::probe().is_err() { return; }
//! let runtime = Runtime::start(Config::default(), |_| NoObserver).unwrap();
//! let (done, finished) = std::sync::mpsc::channel();
//! let spawn = move |cx: &mut Cx<'_>| {
//!     let run = async move |cx: &mut Cx<'_>| done.send(echo_once(cx).await.is_ok()).unwrap();
//!     cx.spawn_with(run).is_ok()
//! };
//! assert!(runtime.run_on(0, spawn).unwrap());
//! assert!(finished.recv().unwrap());
//! ```

pub(crate) mod address;
mod socket;
mod stream;
mod tcp;
mod unix;

pub use crate::op::recv::Recv;
pub use crate::op::{Lease, SendBuf};
pub use tcp::{ListenOptions, TcpListener, TcpStream};
pub use unix::{UnixListener, UnixStream};
