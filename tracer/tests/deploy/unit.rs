//! The systemd unit and its example configuration.

use std::{fs, process::Command};

use clap::CommandFactory as _;
use tcptrace_bpf::cli::Cli;

use crate::{read, root, tool};

const UNIT: &str = "deploy/systemd/tcptrace-bpf.service";
const PROGRAM: &str = "/usr/local/bin/tcptrace-bpf";

/// Highest accepted exposure level of `systemd-analyze security`, in tenths.
const MAX_EXPOSURE: &str = "25";

/// Returns the values of a setting, in order.
fn settings<'a>(unit: &'a str, name: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).collect()
}

#[test]
fn the_command_lines_parse() {
    let unit = read(UNIT);
    let lines = settings(&unit, "ExecStart");
    assert_eq!(lines.len(), 1, "{lines:?}");
    for line in lines {
        let words = line.split_whitespace();
        let matches =
            Cli::command().try_get_matches_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_eq!(matches.subcommand_name(), Some("serve"), "{line}");
    }
}

/// A process of ExecReload= in a mount namespace sees no credentials: systemd 252 passes them to the main process only.
#[test]
fn only_the_main_process_reads_files_at_a_reload() {
    assert_eq!(settings(&read(UNIT), "ExecReload"), ["/bin/kill -HUP $MAINPID"]);
}

#[test]
fn the_example_configuration_is_valid() {
    let file = root().join("deploy/systemd/tcptrace-bpf.toml");
    let output = Command::new(env!("CARGO_BIN_EXE_tcptrace-bpf"))
        .args(["serve", "--check", "--config"])
        .arg(file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_commented_setting_of_the_example_is_valid() {
    // All settings except the address are commented out. The file must also be valid with all of them enabled.
    let example = read("deploy/systemd/tcptrace-bpf.toml");
    let whole: String = example
        .lines()
        .map(|line| match line.strip_prefix("#") {
            Some(setting) if !setting.starts_with([' ', '#']) => format!("{setting}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    assert!(whole.lines().filter(|line| line.contains(" = ")).count() > 5, "{whole}");
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in
        [("networks.txt", "10.0.0.0/8 office\n"), ("services.txt", "web 80,443\n"), ("web.yml", "{}\n")]
    {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let file = folder.path().join("whole.toml");
    let folders = ["/etc/tcptrace-bpf", "/var/lib/tcptrace-bpf"];
    let here = |text: String, folder_of: &&str| text.replace(*folder_of, folder.path().to_str().unwrap());
    fs::write(&file, folders.iter().fold(whole, here)).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tcptrace-bpf"))
        .args(["serve", "--check", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_granted_capability_is_explained() {
    let unit = read(UNIT);
    let [ambient, bounding] =
        ["AmbientCapabilities", "CapabilityBoundingSet"].map(|name| settings(&unit, name));
    assert_eq!(ambient, bounding);
    for capability in ambient[0].split_whitespace() {
        let explained = unit.lines().any(|line| line.starts_with(&format!("# {capability} ")));
        assert!(explained, "{capability} without a comment");
    }
    assert!(!ambient[0].contains("CAP_SYS_ADMIN"), "{ambient:?}");
}

/// Returns the drop-in that docs/operating.md shows.
fn documented_drop_in() -> String {
    let text = read("docs/operating.md");
    let block = text.split("```ini\n").nth(1).and_then(|rest| rest.split("```").next());
    let block = block.expect("docs/operating.md has a drop-in").to_owned();
    assert!(block.contains("LoadCredential="), "{block}");
    block
}

#[test]
fn systemd_accepts_the_unit() {
    // With the path of the built program, because `verify` checks that it exists.
    let folder = tempfile::tempdir().unwrap();
    let unit = read(UNIT).replace(PROGRAM, env!("CARGO_BIN_EXE_tcptrace-bpf"));
    let file = folder.path().join("tcptrace-bpf.service");
    fs::write(&file, unit).unwrap();
    let drop_ins = folder.path().join("tcptrace-bpf.service.d");
    fs::create_dir(&drop_ins).unwrap();
    fs::write(drop_ins.join("other-namespaces.conf"), read("deploy/systemd/other-namespaces.conf")).unwrap();
    fs::write(drop_ins.join("credentials.conf"), documented_drop_in()).unwrap();
    let output = tool("systemd", ".", "systemd-analyze", &["verify", "--man=no", file.to_str().unwrap()]);
    assert!(!output.contains("tcptrace-bpf.service"), "{output}");
}

#[test]
fn the_exposure_level_matches_the_documentation() {
    let output = tool(
        "systemd",
        ".",
        "systemd-analyze",
        &["security", "--offline=true", "--no-pager", &format!("--threshold={MAX_EXPOSURE}"), UNIT],
    );
    let score = output
        .lines()
        .find_map(|line| {
            line.split_once("Overall exposure level for tcptrace-bpf.service: ")?.1.split(' ').next()
        })
        .unwrap_or_else(|| panic!("no score in: {output}"));
    let version = tool("systemd", ".", "systemd-analyze", &["--version"]);
    // Other versions weight the settings differently.
    if version.starts_with("systemd 252") {
        let stated = format!("`systemd-analyze security` of systemd 252 gives the unit {score}");
        assert!(
            read("docs/operating.md").replace('\n', " ").contains(&stated),
            "docs/operating.md: {stated}"
        );
    }
}
