//! The program under test.

use std::{
    env,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

/// Names the program under test where cargo is not available to build it.
const PROGRAM_VARIABLE: &str = "TCPTRACE_BPF_PROGRAM";

/// Returns the program's path. Builds it once per run, with the profile of the tests.
pub fn program() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> =
        LazyLock::new(|| env::var_os(PROGRAM_VARIABLE).map_or_else(build, PathBuf::from));
    &PROGRAM
}

/// Returns whether `doctor` finds an item on this kernel. The name is that of `doctor -o json`, such as `hook
/// fentry`.
pub fn finds(name: &str) -> bool {
    let output = Command::new(program()).args(["doctor", "-o", "json"]).output();
    let output = output.unwrap_or_else(|error| panic!("the program cannot start: {error}"));
    let lines: Vec<serde_json::Value> = serde_json::Deserializer::from_slice(&output.stdout)
        .into_iter()
        .collect::<Result<_, _>>()
        .unwrap_or_else(|error| panic!("the output of doctor is not JSON: {error}"));
    let line = lines.iter().find(|line| line["name"] == name);
    line.unwrap_or_else(|| panic!("doctor has no item {name}: {lines:#?}"))["found"] == true
}

/// Builds the program: cargo gives a package's binaries to its own tests only, and this is another package.
fn build() -> PathBuf {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        // The workspace's unified features avoid building dependencies a second time.
        .args(["build", "--quiet", "--workspace", "--bin", "tcptrace-bpf", "--message-format=json"])
        .stderr(Stdio::inherit());
    let (profile, target_directory) = layout();
    cargo.arg("--profile").arg(profile).arg("--target-dir").arg(target_directory);
    if let (Some(user), Some(group)) = (id("SUDO_UID"), id("SUDO_GID")) {
        // The owner of the build directory could not overwrite files of root.
        cargo.uid(user).gid(group);
    }
    let output = cargo.output().unwrap_or_else(|error| panic!("{cargo:?} cannot start: {error}"));
    assert!(output.status.success(), "building the program failed: {cargo:?}");
    serde_json::Deserializer::from_slice(&output.stdout)
        .into_iter::<serde_json::Value>()
        .filter_map(Result::ok)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .unwrap_or_else(|| panic!("cargo did not report the program's path: {cargo:?}"))
}

fn id(variable: &str) -> Option<u32> {
    env::var(variable).ok()?.parse().ok()
}

/// Returns the profile of this test and the build directory, from the path `TARGET/PROFILE/deps/NAME`.
fn layout() -> (String, PathBuf) {
    let executable = env::current_exe().expect("a running program has a file");
    let mut folders = executable.ancestors().skip(2);
    let profile = folders.next().and_then(Path::file_name).expect("tests run from cargo's build directory");
    let profile = match profile.to_string_lossy().as_ref() {
        "debug" => "dev".to_owned(),
        other => other.to_owned(),
    };
    let directory = folders.next().expect("a profile's directory is in the build directory").to_owned();
    (profile, directory)
}
