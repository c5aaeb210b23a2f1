//! File names of formats that `record` and `export` do not write, and the commands that do.

use std::{
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use tracer_core::escape::escape;

/// Returns the sentence that refuses a recording with the name of another format; none if the name suits a recording.
pub(super) fn refused_recording(file: &Path) -> Option<String> {
    let kind = extension(file)?;
    let arrows = shown(&file.with_extension("arrows"));
    let file = shown(file);
    let then = match kind.as_str() {
        "parquet" | "csv" => format!("`tcptrace-bpf export {arrows} --what connections --to {file}`"),
        "json" | "jsonl" | "ndjson" => format!("`tcptrace-bpf -i {arrows} -o json > {file}`"),
        "svg" => format!("`tcptrace-bpf -i {arrows} diagram --svg {file}`"),
        "pcap" | "pcapng" | "cap" => {
            return Some(format!(
                "`record` writes state transitions, not packets: give {arrows}, or capture packets with `tcpdump -w {file}`"
            ));
        }
        _ => return None,
    };
    Some(format!("`record` writes Arrow, not {kind}: give {arrows}, and then {then}"))
}

/// Returns the sentence that refuses an export of `recording` to a file of another format; none if the name is that of a
/// folder, of Parquet or of CSV.
pub(super) fn refused_export(to: &Path, recording: &[PathBuf]) -> Option<String> {
    if to.as_os_str().as_bytes().ends_with(b"/") || to.is_dir() {
        return None;
    }
    let kind = extension(to)?;
    let instead = match kind.as_str() {
        "json" | "jsonl" | "ndjson" => {
            let inputs: Vec<String> = recording.iter().map(|file| format!("-i {}", shown(file))).collect();
            format!("`tcptrace-bpf {} -o json > {}` writes JSON", inputs.join(" "), shown(to))
        }
        "arrow" | "arrows" | "feather" | "ipc" => {
            "a recording is an Arrow stream already, which other programs read as it is".to_owned()
        }
        "pcap" | "pcapng" | "cap" => "a recording has no packets; `tcpdump -w` captures them".to_owned(),
        "pq" | "parq" => format!("give {}", shown(&to.with_extension("parquet"))),
        "tsv" | "txt" | "xls" | "xlsx" | "orc" | "avro" | "db" | "duckdb" | "sqlite" | "gz" | "zst"
        | "zip" => "give a name that ends in .parquet or .csv, or a folder".to_owned(),
        _ => return None,
    };
    Some(format!("`export` writes Parquet and CSV, not .{kind}: {instead}"))
}

/// Returns the extension of a file name in lower case.
fn extension(file: &Path) -> Option<String> {
    file.extension()?.to_str().map(str::to_ascii_lowercase)
}

fn shown(file: &Path) -> String {
    escape(file.as_os_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_with_the_name_of_another_format_is_refused_with_the_right_command() {
        let refused = |file: &str| refused_recording(Path::new(file));
        for (file, part) in [
            (
                "x.parquet",
                "give x.arrows, and then `tcptrace-bpf export x.arrows --what connections --to x.parquet`",
            ),
            (
                "a/x.CSV",
                "give a/x.arrows, and then `tcptrace-bpf export a/x.arrows --what connections --to a/x.CSV`",
            ),
            ("x.json", "`tcptrace-bpf -i x.arrows -o json > x.json`"),
            ("x.svg", "`tcptrace-bpf -i x.arrows diagram --svg x.svg`"),
            ("x.pcap", "give x.arrows, or capture packets with `tcpdump -w x.pcap`"),
        ] {
            let error = refused(file).unwrap();
            assert!(error.contains(part), "{error}");
        }
        for file in ["x.arrows", "x.arrow", "x", "-", "trace.2026-11-21", "/dev/null"] {
            assert_eq!(refused(file), None, "{file}");
        }
    }

    #[test]
    fn an_export_to_another_format_is_refused_with_the_right_command() {
        let recording = [PathBuf::from("a.1.arrows"), PathBuf::from("a.2.arrows")];
        let refused = |to: &str| refused_export(Path::new(to), &recording);
        for (to, part) in [
            ("x.json", "`tcptrace-bpf -i a.1.arrows -i a.2.arrows -o json > x.json` writes JSON"),
            ("x.arrows", "an Arrow stream already"),
            ("x.pcap", "no packets"),
            ("x.pq", "give x.parquet"),
            ("x.csv.gz", "ends in .parquet or .csv"),
        ] {
            let error = refused(to).unwrap();
            assert!(error.contains(part), "{error}");
        }
        for to in ["traces", "traces/", "x.json/", "traces.2026-11-21", "x.parquet", "x.csv"] {
            assert_eq!(refused(to), None, "{to}");
        }
        let folder = tempfile::Builder::new().suffix(".json").tempdir().unwrap();
        assert_eq!(refused(folder.path().to_str().unwrap()), None, "an existing folder");
    }
}
