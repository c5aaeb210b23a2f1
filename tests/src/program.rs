//! The program under test.

use std::{
    env,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

/// A path in this variable is the program, where there is no cargo to ask for it.
const PROGRAM_VARIABLE: &str = "TCPTRACE_BPF_PROGRAM";

/// The program, built with the profile of the tests; built once a run.
pub fn program() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> =
        LazyLock::new(|| env::var_os(PROGRAM_VARIABLE).map_or_else(build, PathBuf::from));
    &PROGRAM
}

/// Whether the program's `doctor` finds a thing on this kernel, by the name that it shows, such as
/// `hook fentry`.
pub fn finds(name: &str) -> bool {
    let output = Command::new(program()).args(["doctor", "-o", "json"]).output();
    let output = output.unwrap_or_else(|error| panic!("the program cannot start: {error}"));
    let lines: Vec<serde_json::Value> = serde_json::Deserializer::from_slice(&output.stdout)
        .into_iter()
        .collect::<Result<_, _>>()
        .unwrap_or_else(|error| panic!("the doctor's output is not JSON: {error}"));
    let line = lines.iter().find(|line| line["name"] == name);
    line.unwrap_or_else(|| panic!("the doctor does not look for {name}: {lines:#?}"))["found"] == true
}

/// Cargo offers a package's binaries to its own tests only, so this asks it for the other package's.
fn build() -> PathBuf {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        // The features of the whole workspace, so that nothing is built a second time.
        .args(["build", "--quiet", "--workspace", "--bin", "tcptrace-bpf", "--message-format=json"])
        .stderr(Stdio::inherit());
    let (profile, target_directory) = layout();
    cargo.arg("--profile").arg(profile).arg("--target-dir").arg(target_directory);
    if let (Some(user), Some(group)) = (id("SUDO_UID"), id("SUDO_GID")) {
        // Root's files in the build directory would stand in its owner's way.
        cargo.uid(user).gid(group);
    }
    let output = cargo.output().unwrap_or_else(|error| panic!("{cargo:?} cannot start: {error}"));
    assert!(output.status.success(), "the program cannot be built: {cargo:?}");
    serde_json::Deserializer::from_slice(&output.stdout)
        .into_iter::<serde_json::Value>()
        .filter_map(Result::ok)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .unwrap_or_else(|| panic!("cargo does not say where the program is: {cargo:?}"))
}

fn id(variable: &str) -> Option<u32> {
    env::var(variable).ok()?.parse().ok()
}

/// The profile of this test and the build directory, from its place `TARGET/PROFILE/deps/NAME`.
fn layout() -> (String, PathBuf) {
    let this = env::current_exe().expect("a running program has a file");
    let mut places = this.ancestors().skip(2);
    let profile = places.next().and_then(Path::file_name).expect("tests run from cargo's build directory");
    let profile = match profile.to_string_lossy().as_ref() {
        "debug" => "dev".to_owned(),
        other => other.to_owned(),
    };
    let directory = places.next().expect("a profile's directory is in the build directory").to_owned();
    (profile, directory)
}
