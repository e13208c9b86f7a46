//! What doctor and the manifest say about the host, from probes and runtime.

use tailbeam_probes::collect::host::Host;
use tailbeam_runtime::Cores;
use tailbeam_runtime::features::{self, BellCost};

/// The ring features of this kernel as (name, present), or the cause and remedy.
///
/// # Errors
/// The start error of the runtime as text: cause and remedy.
pub fn ring_features() -> Result<Vec<(String, bool)>, String> {
    let found = features::probe().map_err(|error| error.to_string())?;
    Ok(vec![
        ("single_issuer".to_owned(), found.single_issuer),
        ("defer_taskrun".to_owned(), found.defer_taskrun),
        ("msg_ring".to_owned(), found.msg_ring),
        ("ext_arg".to_owned(), found.ext_arg),
        ("multishot_accept".to_owned(), found.multishot_accept),
        ("multishot_recv".to_owned(), found.multishot_recv),
        ("send_zc".to_owned(), found.send_zc),
        ("no_iowait".to_owned(), found.no_iowait),
    ])
}

/// The bells that a runtime would choose here, and each figure or why there is none. 50 ms on two cores.
///
/// # Errors
/// The start error of the runtime as text: cause and remedy.
pub fn bells() -> Result<Vec<(String, String)>, String> {
    let figures = features::calibrate(&Cores::Auto).map_err(|error| error.to_string())?;
    let us = |ns: u64| format!("{:.1} us", ns as f64 / 1e3);
    let cost = |cost: &Result<BellCost, String>| match cost {
        Ok(cost) => {
            let (wake, p90, call) = (us(cost.wake_ns), us(cost.wake_p90_ns), us(cost.call_ns));
            format!("{wake} (p90 {p90}), call {call}")
        }
        Err(why) => format!("unknown: {why}"),
    };
    let price = |price: &Result<u64, String>, text: &dyn Fn(u64) -> String| match price {
        Ok(price) => text(*price),
        Err(why) => format!("unknown: {why}"),
    };
    let fence = price(&figures.fence_ps, &|ps| format!("{:.1} ns", ps as f64 / 1e3));
    let barrier = price(&figures.membarrier_ns, &us);
    Ok(vec![
        ("bells".to_owned(), figures.choose().to_string()),
        ("MSG_RING".to_owned(), cost(&figures.msg_ring)),
        ("SEND_MSG_RING".to_owned(), cost(&figures.send_msg_ring)),
        ("eventfd".to_owned(), cost(&figures.event_fd)),
        ("fence".to_owned(), fence),
        ("membarrier".to_owned(), barrier),
    ])
}

/// Kernel and CPU in one line.
#[must_use]
pub fn one_line(host: &Host) -> String {
    let text = |field: &Result<String, String>| {
        field.clone().unwrap_or_else(|cause| format!("unknown ({cause})"))
    };
    format!("kernel {}, {}", text(&host.kernel), text(&host.cpu))
}

/// Every field as JSON; a missing one is an object with its cause.
pub(crate) fn json(host: &Host) -> String {
    let fields: serde_json::Map<String, serde_json::Value> = host
        .fields()
        .into_iter()
        .map(|(name, field)| {
            let value = match field {
                Ok(value) => serde_json::json!(value),
                Err(cause) => serde_json::json!({ "unknown": cause }),
            };
            (name.to_owned(), value)
        })
        .collect();
    format!("{:#}\n", serde_json::Value::Object(fields))
}
