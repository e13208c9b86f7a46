//! Windows as rows, read by pandas and DuckDB: types, units in names, and the figures of the frames.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tailbeam::render::export::rows::{Kind, Rows, counter_names, write};

use super::latency::{intervals, python};
use super::programs::run;

fn file(path: &Path, rows: Rows, kind: Kind) {
    let (_dir, mut first) = intervals(|_| {});
    let names = counter_names(&mut first);
    let (_dir, mut again) = intervals(|_| {});
    write(&mut again, &mut |_| true, (rows, kind), &names, &mut File::create(path).unwrap())
        .unwrap();
}

fn ask(python: &Path, script: &str, files: [&Path; 2]) -> Value {
    serde_json::from_str(&run(Command::new(python).arg("-c").arg(script).args(files))).unwrap()
}

#[test]
fn pandas_reads_types_times_and_what_is_unknown() {
    let Some(python) = python("pandas") else { return };
    let dir = tempfile::tempdir().unwrap();
    let (csv, jsonl) = (dir.path().join("w.csv"), dir.path().join("c.jsonl"));
    file(&csv, Rows::Windows, Kind::Csv);
    file(&jsonl, Rows::Cores, Kind::Jsonl);
    let script = "
import json, sys, pandas
w = pandas.read_csv(sys.argv[1], parse_dates=['from', 'to'])
c = pandas.read_json(sys.argv[2], lines=True)
print(json.dumps({
    'rows': len(w), 'attempts': int(w.attempts.sum()), 'count': int(w.latency_count.sum()),
    'seconds': (w['to'] - w['from']).dt.total_seconds().tolist(), 'utc': str(w['from'].dt.tz),
    'cores': sorted(c.core.unique().tolist()), 'cycles': int(c.cycles.notna().sum()),
    'turns_ns': int(c.turns_ns.sum()), 'p99': int(w.latency_p99_ns.max())}))";
    let found = ask(&python, script, [&csv, &jsonl]);
    assert_eq!(
        (&found["rows"], &found["attempts"], &found["count"]),
        (&6.into(), &6_000.into(), &6_000.into())
    );
    assert_eq!(
        (&found["seconds"], &found["utc"]),
        (&serde_json::json!(vec![10.0; 6]), &"UTC".into())
    );
    assert_eq!((&found["cores"], &found["cycles"]), (&serde_json::json!([1, 3]), &0.into()));
    assert_eq!(found["turns_ns"], 6 * 2 * 10 * 340_000_000u64);
}

#[test]
fn duckdb_and_pandas_read_parquet_with_its_types() {
    let Some(python) = python("duckdb, pyarrow, pandas") else { return };
    let dir = tempfile::tempdir().unwrap();
    let (parquet, csv) = (dir.path().join("c.parquet"), dir.path().join("c.csv"));
    file(&parquet, Rows::Cores, Kind::Parquet);
    file(&csv, Rows::Cores, Kind::Csv);
    let script = "
import json, sys, duckdb, pandas
ask = lambda source: duckdb.sql(f\"select count(*)::int, sum(task_clock_ns)::bigint, sum(latency_count)::bigint, count(cycles)::int, max(latency_mean_ns)::double, min(\\\"from\\\")::timestamp::varchar from {source}\").fetchall()[0]
types = dict((n, t) for n, t, *_ in duckdb.sql(f\"describe select * from read_parquet('{sys.argv[1]}')\").fetchall())
p = pandas.read_parquet(sys.argv[1])
print(json.dumps({'parquet': ask(f\"read_parquet('{sys.argv[1]}')\"), 'csv': ask(f\"read_csv('{sys.argv[2]}')\"),
    'types': types, 'rows': len(p), 'utc': str(p['from'].dt.tz), 'why': json.loads(p['unknown'][0]).get('cycles')}))";
    let found = ask(&python, script, [&parquet, &csv]);
    assert_eq!(found["parquet"], found["csv"], "{found}");
    assert_eq!((&found["rows"], &found["utc"]), (&12.into(), &"UTC".into()), "{found}");
    for (column, is) in [
        ("run", "VARCHAR"),
        ("from", "TIMESTAMPTZ_NS"),
        ("turns", "UBIGINT"),
        ("latency_mean_ns", "DOUBLE"),
        ("cycles", "UBIGINT"),
        ("cycles_quality", "VARCHAR"),
    ] {
        assert_eq!(found["types"][column], is, "{column}: {found}");
    }
    assert!(found["why"].is_string(), "{found}");
}

#[test]
fn duckdb_reads_both_forms_to_the_same_sums() {
    let Some(python) = python("duckdb") else { return };
    let dir = tempfile::tempdir().unwrap();
    let (csv, jsonl) = (dir.path().join("c.csv"), dir.path().join("c.jsonl"));
    file(&csv, Rows::Cores, Kind::Csv);
    file(&jsonl, Rows::Cores, Kind::Jsonl);
    let script = "
import json, sys, duckdb
ask = lambda source: duckdb.sql(f\"select count(*)::int, sum(task_clock_ns)::bigint, sum(latency_count)::bigint, count(cycles)::int, typeof(any_value(\\\"from\\\")) from {source}\").fetchall()[0]
print(json.dumps([ask(f\"read_csv('{sys.argv[1]}')\"), ask(f\"read_json('{sys.argv[2]}')\")]))";
    let found = ask(&python, script, [&csv, &jsonl]);
    assert_eq!(found[0].as_array().unwrap()[..4], found[1].as_array().unwrap()[..4], "{found}");
    assert_eq!(
        (&found[0][0], &found[0][2], &found[0][3]),
        (&12.into(), &6_000.into(), &0.into()),
        "{found}"
    );
    assert!(found[0][4].as_str().unwrap().starts_with("TIMESTAMP"), "{found}");
}
