//! What doctor and the manifest say about the host, from probes and runtime.

use tailbeam_probes::collect::host::Host;

/// The ring features of this kernel as (name, present), or the cause and remedy.
///
/// # Errors
/// The start error of the runtime as text: cause and remedy.
pub fn ring_features() -> Result<Vec<(String, bool)>, String> {
    let found = tailbeam_runtime::features::probe().map_err(|error| error.to_string())?;
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

/// Kernel and CPU in one line.
pub(crate) fn one_line(host: &Host) -> String {
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
