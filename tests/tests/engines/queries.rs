//! The queries of the documentation, and what exports answer, on a recording of real connections.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use tcptrace_tests::process::own_name;

use crate::{
    python::run_python_in,
    real::{LEAKED, RealRecording},
};

/// Returns the code blocks in SQL and Python of a page, with the lines on which they begin.
fn blocks(page: &str, text: &str) -> Vec<Value> {
    let mut blocks = Vec::new();
    let mut lines = (1..).zip(text.lines());
    while let Some((line, fence)) = lines.next() {
        let Some(language) = fence.trim_start().strip_prefix("```") else { continue };
        let inside = lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim_start() != "```");
        let text = inside.collect::<Vec<_>>().join("\n");
        if matches!(language, "sql" | "python") {
            blocks.push(json!({ "page": page, "line": line, "language": language, "text": text }));
        }
    }
    blocks
}

/// Returns the code blocks of the README and of every page of the documentation.
fn documented_blocks() -> Vec<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut pages: Vec<PathBuf> =
        fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.push(root.join("README.md"));
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
    pages.sort();
    let read = |page: &PathBuf| {
        let name = page.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        blocks(&name, &fs::read_to_string(page).unwrap())
    };
    pages.iter().flat_map(read).collect()
}

/// Runs each block; those in Python of one page share their names. The last expression of a block is its result.
const RUN: &str = r#"
import ast, json
import duckdb, pandas as pd, polars as pl

def frame(value):
    if isinstance(value, duckdb.DuckDBPyRelation):
        return value.pl()
    if isinstance(value, pd.Series):
        value = value.to_frame("value")
    return pl.from_pandas(value.reset_index()) if isinstance(value, pd.DataFrame) else value

results, pages = [], {}
for block in json.load(open("blocks.json")):
    where = f'{block["page"]}:{block["line"]}'
    try:
        if block["language"] == "sql":
            rows = frame(duckdb.sql(block["text"]))
        else:
            names = pages.setdefault(block["page"], {})
            code = ast.parse(block["text"])
            last = code.body.pop()
            exec(compile(code, where, "exec"), names)
            rows = frame(eval(compile(ast.Expression(last.value), where, "eval"), names))
        empty = [name for name in rows.columns if rows[name].null_count() == rows.height]
        results.append({"where": where, "rows": rows.height, "empty": empty})
    except Exception as error:
        results.append({"where": where, "rows": 0, "empty": [], "error": str(error)})
print(json.dumps(results))
"#;

/// A new query is in the test by itself.
#[test]
fn every_documented_query_returns_rows_with_values() {
    let Some(recording) = RealRecording::new("documented") else { return };
    recording.export(&[]);
    let blocks = documented_blocks();
    fs::write(recording.folder().join("blocks.json"), serde_json::to_vec(&blocks).unwrap()).unwrap();
    let results = run_python_in(recording.folder(), RUN);
    let results = results.as_array().unwrap();
    assert_eq!(results.len(), blocks.len());
    assert!(results.len() >= 14, "the documentation has queries: {results:#?}");
    for result in results {
        assert!(result["error"].is_null(), "{result:#?}");
        assert!(result["rows"].as_u64() > Some(0), "no rows: {result:#?}");
        assert_eq!(result["empty"], json!([]), "columns with only NULL: {result:#?}");
    }
}

#[test]
fn code_blocks_are_found_with_their_lines() {
    let page = "text\n```sql\nSELECT 1\nFROM t\n```\n```text\n```\n\n```python\n1\n```\n";
    let found = blocks("a.md", page);
    let lines: Vec<_> = found.iter().map(|it| (it["line"].as_u64(), it["text"].as_str())).collect();
    assert_eq!(lines, [(Some(2), Some("SELECT 1\nFROM t")), (Some(9), Some("1"))]);
}

/// Opens the exported files by their paths alone.
const ANSWERS: &str = r#"
import json
import duckdb, pandas as pd, polars as pl, pyarrow.ipc as ipc
connections, transitions, open_ = (
    f"'traces/{table}/**/*.parquet'" for table in ("connections", "transitions", "open_connections"))
rows = lambda query: duckdb.sql(query).fetchall()
both = f"(SELECT connection_id FROM {connections} UNION ALL SELECT connection_id FROM {open_})"
recording = ipc.open_stream("incident.arrows").read_all()
print(json.dumps({
    "leaks": rows(f"SELECT process, count(*), bool_and(age_source = 'observed' AND age_us > 0) FROM {open_} WHERE state = 'close_wait' GROUP BY ALL"),
    "open": rows(f"SELECT state, count(*), count(process), count(opened) FROM {open_} GROUP BY ALL ORDER BY ALL"),
    "reasons": rows(f"SELECT close_reason, count(*), count(process) FROM {connections} GROUP BY ALL ORDER BY ALL"),
    "unknown": rows(f"SELECT count(*) FROM {transitions} WHERE connection_id NOT IN {both}")[0][0],
    "without_id": rows(f"SELECT count(*) FROM {transitions} WHERE connection_id IS NULL AND from_state <> 'listen' AND to_state <> 'listen'")[0][0],
    "duplicate": rows(f"SELECT count(*) - count(DISTINCT connection_id) FROM {both}")[0][0],
    "without_transitions": rows(f"SELECT count(*) FROM {both} WHERE connection_id NOT IN (SELECT connection_id FROM {transitions} WHERE connection_id IS NOT NULL)")[0][0],
    "earlier": rows(f"SELECT count(DISTINCT c.connection_id), count(t.connection_id) FROM {connections} c LEFT JOIN {transitions} t USING (connection_id) WHERE c.incomplete")[0],
    "other_names": rows(f"""SELECT count(*) FROM {transitions} WHERE from_state <> "from" OR to_state <> "to" OR process IS DISTINCT FROM comm""")[0][0],
    "bytes": rows(f"SELECT DISTINCT remote_address, hex(remote_address_bytes) FROM {connections} UNION SELECT DISTINCT remote_address, hex(remote_address_bytes) FROM {open_} ORDER BY ALL"),
    "counts": rows(f"SELECT count(*) FROM {connections}")[0][0],
    "polars": pl.read_parquet("traces/connections/**/*.parquet").height,
    "pandas": len(pd.read_parquet("traces/connections")),
    "existing": rows("""SELECT to_state, count(*), count(local_address), count(local_port), count(pid), count(process),
        count(cookie), count(DISTINCT cookie) FROM recording WHERE kind = 'existing' AND netns = NETNS GROUP BY ALL ORDER BY ALL"""),
    "later": rows("""SELECT count(*) FROM recording e JOIN recording t ON t.kind = 'transition' AND t.cookie = e.cookie
        WHERE e.kind = 'existing' AND e.netns = NETNS AND e.to_state = 'established'""")[0][0],
}))
"#;

#[test]
fn an_export_answers_by_its_own_columns() {
    let Some(recording) = RealRecording::new("answers") else { return };
    let netns = recording.netns().to_string();
    recording.export(&["--netns", &netns]);
    let found = run_python_in(recording.folder(), &ANSWERS.replace("NETNS", &netns));
    let leaked = LEAKED as u64;
    assert_eq!(found["leaks"], json!([[own_name(), leaked, true]]));
    assert_eq!(found["open"], json!([["close_wait", leaked, leaked, leaked], ["established", 2, 2, 2]]));
    // Both ends of two connections, one of them from before the recording, and the clients of those that leak.
    let closed = 2 + 2 + leaked;
    let reasons = &found["reasons"];
    let count_of = |reason: &str| reasons.as_array().unwrap().iter().find(|row| row[0] == reason).cloned();
    assert_eq!(count_of("closed"), Some(json!(["closed", closed, closed])), "{reasons}");
    assert_eq!(count_of("refused"), Some(json!(["refused", 1, 1])), "{reasons}");
    assert_eq!(count_of("reset_by_peer"), Some(json!(["reset_by_peer", 1, 1])), "{reasons}");
    for nothing in ["unknown", "without_id", "duplicate", "without_transitions", "other_names"] {
        assert_eq!(found[nothing], 0, "{nothing}: {found:#}");
    }
    // Client: FIN_WAIT1, FIN_WAIT2, CLOSE. Server: CLOSE_WAIT, LAST_ACK, CLOSE.
    assert_eq!(found["earlier"], json!([2, 6]));
    assert_eq!(
        found["bytes"],
        json!([
            ["127.0.0.1", "00000000000000000000FFFF7F000001"],
            ["::1", "00000000000000000000000000000001"]
        ])
    );
    // The reset connection has one more row: its client aborted it.
    for engine in ["counts", "polars", "pandas"] {
        assert_eq!(found[engine], closed + 1 + 2, "{engine}");
    }
    assert_eq!(
        found["existing"],
        json!([["established", 2, 2, 2, 2, 2, 2, 2], ["listen", 1, 1, 1, 1, 1, 1, 1]])
    );
    assert_eq!(found["later"], 6, "existing connections and their transitions share their cookies");
}
