//! What differs between two sides besides what was measured: plan, host, program.

use serde_json::Value;

use super::outcome::Difference;
use crate::evidence::records::Manifest;
use crate::plan::Plan;

/// The keys in which a run of A differs from a run of B. Seeds are left out: they differ by block.
#[must_use]
pub fn differences(a: (&Plan, &Manifest), b: (&Plan, &Manifest)) -> Vec<Difference> {
    let (mut left, mut right) = (Vec::new(), Vec::new());
    flatten("", &plan(a.0), &mut left);
    flatten("", &plan(b.0), &mut right);
    let mut keys: Vec<&String> = left.iter().chain(&right).map(|pair| &pair.0).collect();
    keys.sort();
    keys.dedup();
    let of = |side: &[(String, String)], key: &str| {
        side.iter().find(|pair| pair.0 == key).map_or_else(|| "-".to_owned(), |pair| pair.1.clone())
    };
    let mut found: Vec<Difference> = keys
        .into_iter()
        .filter(|key| *key != "seed")
        .map(|key| Difference { key: key.clone(), a: of(&left, key), b: of(&right, key) })
        .collect();
    let manifests = [
        ("host", &a.1.host, &b.1.host),
        ("recorded by", &a.1.recorded_by, &b.1.recorded_by),
        ("turn stamps", &a.1.stamps, &b.1.stamps),
    ];
    found.extend(manifests.map(|(key, a, b)| Difference {
        key: key.to_owned(),
        a: a.clone(),
        b: b.clone(),
    }));
    found.retain(|difference| difference.a != difference.b);
    found
}

fn plan(plan: &Plan) -> Value {
    serde_json::to_value(plan).unwrap_or(Value::Null)
}

fn flatten(prefix: &str, value: &Value, into: &mut Vec<(String, String)>) {
    let below = |key: &str| {
        if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
    };
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(key, value)| flatten(&below(key), value, into));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, v)| flatten(&below(&i.to_string()), v, into));
        }
        other => into.push((prefix.to_owned(), other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_named() {
        let manifest = |host: &str| Manifest {
            id: "x".to_owned(),
            recorded_by: "1".to_owned(),
            workload: String::new(),
            started_unix_ns: 0,
            start_ns: 0,
            plan_sha256: String::new(),
            cores: Vec::new(),
            limits_ns: Vec::new(),
            host: host.to_owned(),
            no_heap: None,
            matrix: Vec::new(),
            stamps: String::new(),
            clock_bound_ns: None,
            unknowns: Vec::new(),
            units: None,
            began: None,
        };
        let (a, mut b) = (Plan::soak("elicit"), Plan::soak("ask"));
        (b.seed, b.delay.max_ns) = (9, 7);
        let found = differences((&a, &manifest("h")), (&b, &manifest("i")));
        let keys: Vec<&str> = found.iter().map(|difference| difference.key.as_str()).collect();
        assert_eq!(keys, ["delay.max_ns", "workload", "host"]);
        assert_eq!(found[0].b, "7");
        assert!(differences((&a, &manifest("h")), (&a, &manifest("h"))).is_empty());
    }
}
