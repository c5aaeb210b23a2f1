//! Checks the container image with podman.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use super::tracer;
use crate::process;

/// Loads the image into a storage of its own and traces the host with the options in `page`, docs/install.md.
pub(super) fn check(archive: &Path, name: &str, page: &str, storage: &Path) -> Result<()> {
    let podman = || podman(storage);
    let _ = process::probe(podman().args(["system", "reset", "--force"]));
    process::run(podman().args(["load", "--quiet", "--input"]).arg(archive))?;
    let image = format!("localhost/{name}");
    let run = |options: &[&str]| {
        let mut command = podman();
        // A caller without CAP_SYS_RESOURCE cannot raise limits to podman's defaults.
        command
            .args(["run", "--rm", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"])
            .args(options)
            .arg(&image);
        command
    };
    let version = process::probe(run(&["--network=none"]).arg("--version"))?;
    let version = version.context("the image's program does not start")?;
    ensure!(version.starts_with("tcptrace-bpf "), "the image's program printed {version}");
    let options = documented_options(page)?;
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    tracer::traces(run(&options).args(["connections", "-o", "json"]))?;
    Ok(())
}

/// Returns podman with a storage of its own.
pub(super) fn podman(storage: &Path) -> Command {
    let mut podman = Command::new("podman");
    // runc runs with every version of cgroups.
    podman.args(["--runtime", "runc", "--root"]).arg(storage.join("root"));
    podman.arg("--runroot").arg(storage.join("run"));
    podman
}

/// Removes the image and the storage.
pub(super) fn remove(name: &str, storage: &Path) -> Result<()> {
    process::run(podman(storage).args(["rmi", "--force", &format!("localhost/{name}")]))?;
    fs::remove_dir_all(storage).with_context(|| format!("could not remove {}", storage.display()))
}

/// Returns the options of the first `podman run` in docs/install.md, except those that detach the container.
fn documented_options(text: &str) -> Result<Vec<String>> {
    let command = text.split("podman run ").nth(1).context("docs/install.md has no `podman run`")?;
    let mut words = command.split_whitespace().filter(|word| *word != "\\");
    let mut options = Vec::new();
    loop {
        match words.next().context("the `podman run` of docs/install.md names no image")? {
            "--detach" => {}
            "--name" | "--restart" => {
                words.next();
            }
            word if word.starts_with("tcptrace-bpf:") => return Ok(options),
            word => options.push(word.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_those_of_the_documented_command() {
        let text = "```sh\nsudo podman run --detach --name a --restart on-failure \\\n  --pid host tcptrace-bpf:0.1.0 serve\n```";
        assert_eq!(documented_options(text).unwrap(), ["--pid", "host"]);
        assert!(documented_options("none").is_err());
        let page = include_str!("../../../../docs/install.md");
        assert!(documented_options(page).unwrap().iter().any(|option| option == "bpf"));
    }
}
