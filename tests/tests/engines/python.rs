//! A Python with the libraries that read recordings and exports, and scripts that it runs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

/// What pip installs. Another list makes a new environment.
const PACKAGES: [&str; 4] = ["pyarrow>=17", "duckdb>=1", "polars>=1", "pandas>=2"];

/// Runs a command, and panics with its output if it fails.
pub(crate) fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} cannot start: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Returns a Python with the packages. The environment is created once, in the build directory; tests run in parallel.
fn python() -> PathBuf {
    static CREATING: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _guard = CREATING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).join("engines");
    let python = environment.join("bin/python");
    let ready = environment.join("ready");
    let wanted = PACKAGES.join("\n");
    if fs::read_to_string(&ready).ok().as_deref() != Some(&wanted) {
        succeed(Command::new("python3").args(["-m", "venv"]).arg(&environment));
        let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        succeed(Command::new(&python).args(install).args(PACKAGES));
        fs::write(ready, wanted).unwrap();
    }
    python
}

/// Computes the number of rows of a pyarrow table and the sum of `bytes_sent`.
const PYARROW_OF: &str = r#"
import pyarrow.compute as pc
pyarrow_of = lambda table: [table.num_rows, pc.sum(table["bytes_sent"]).as_py()]
"#;

/// Runs a Python script that prints one JSON value.
pub(crate) fn run_python(script: &str, arguments: &[&Path]) -> Value {
    let output =
        succeed(Command::new(python()).arg("-c").arg(format!("{PYARROW_OF}{script}")).args(arguments));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Runs a Python script in a folder. It prints one JSON value.
pub(crate) fn run_python_in(folder: &Path, script: &str) -> Value {
    let output = succeed(Command::new(python()).current_dir(folder).arg("-c").arg(script));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Creates a folder for the files of a test.
pub(crate) fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    fs::create_dir_all(&path).unwrap();
    path
}
