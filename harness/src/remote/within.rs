//! Waiting for something, but not for ever.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use tailbeam_runtime::Cx;

/// What `future` gives until `at_ns`; `None`: it is later, and the future is dropped. Without room for a timer it waits
/// as long as the future does.
pub(crate) async fn until<T>(
    cx: &mut Cx<'_>,
    at_ns: u64,
    future: impl Future<Output = T>,
) -> Option<T> {
    let mut sleep = pin!(cx.sleep_until(at_ns));
    let mut future = pin!(future);
    poll_fn(|context| {
        if let Poll::Ready(got) = future.as_mut().poll(context) {
            return Poll::Ready(Some(got));
        }
        match sleep.as_mut().poll(context) {
            Poll::Ready(Ok(())) => Poll::Ready(None),
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    })
    .await
}
