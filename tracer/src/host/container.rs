//! Parses a cgroup path into container, pod and systemd unit. Pure: it reads only names.
//!
//! Every runtime encodes the container id in the cgroup name in its own way. The unit tests list one row per layout.

use std::{borrow::Cow, fmt};

/// The container runtime, recognized by its cgroup layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Runtime {
    /// Docker, or the Docker shim of Kubernetes.
    Docker,
    /// containerd, through its CRI plugin or nerdctl.
    Containerd,
    /// CRI-O.
    CriO,
    /// Podman, or anything else that uses libpod.
    Podman,
    /// LXC, LXD, Incus, or libvirt's LXC driver.
    Lxc,
    /// systemd-nspawn, or another manager that registers containers with systemd-machined.
    Nspawn,
    /// The path has a container id but not the runtime: Kubernetes with the cgroupfs driver, or Docker with a custom
    /// parent cgroup.
    Unnamed,
}

impl Runtime {
    /// Returns the name for output: `docker`, `containerd`, `cri-o`, `podman`, `lxc`, `nspawn`, `unnamed`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::CriO => "cri-o",
            Self::Podman => "podman",
            Self::Lxc => "lxc",
            Self::Nspawn => "nspawn",
            Self::Unnamed => "unnamed",
        }
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A container, as named by its cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Container {
    /// The full id: 64 lower-case hexadecimal digits. For [`Runtime::Lxc`] and [`Runtime::Nspawn`] the container's
    /// name: 1 to 255 of `A-Z a-z 0-9 . _ -`, without a leading dot.
    pub id: String,
    /// The runtime that created it.
    pub runtime: Runtime,
}

/// The owner of the processes in a cgroup, as far as its path names one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupOwner {
    /// The innermost container.
    pub container: Option<Container>,
    /// The uid of the innermost Kubernetes pod, as in `metadata.uid` (static pods: 32 hexadecimal digits without
    /// dashes).
    pub pod_uid: Option<String>,
    /// The innermost systemd unit (service, scope, socket, mount or swap) that is not a container, by the name that
    /// `systemctl` accepts, including escapes such as `\x2d`.
    pub unit: Option<String>,
}

impl CgroupOwner {
    /// Parses a path within a cgroup hierarchy, from `/proc/PID/cgroup` or [`CgroupPaths`](super::CgroupPaths). Accepts
    /// any string and skips unknown parts.
    pub fn from_path(path: &str) -> Self {
        let mut owner = Self::default();
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        // From the innermost directory outwards.
        for (at, name) in parts.iter().enumerate().rev() {
            let outer = at.checked_sub(1).and_then(|at| parts.get(at)).copied();
            owner.add_directory(outer, name, parts.get(at + 1).copied());
        }
        owner
    }

    /// Adds what the name of the directory `name` in `outer` encodes. `inner` is the next directory on the path.
    fn add_directory(&mut self, outer: Option<&str>, name: &str, inner: Option<&str>) {
        let container = container(outer, name, inner);
        if self.unit.is_none() && container.is_none() {
            self.unit = unit(name).map(str::to_owned);
        }
        if self.container.is_none() {
            self.container = container;
        }
        if self.pod_uid.is_none() {
            self.pod_uid = pod_uid(name);
        }
    }
}

/// Returns the container whose cgroup is `outer`/`name`.
fn container(outer: Option<&str>, name: &str, inner: Option<&str>) -> Option<Container> {
    if let Some((runtime, id)) = hex_container(outer, name) {
        return Some(Container { id: id.to_owned(), runtime });
    }
    let (runtime, id) = named_container(outer, name, inner)?;
    is_name(&id).then(|| Container { id: id.into_owned(), runtime })
}

/// Parses a container id of 64 hexadecimal digits.
fn hex_container<'a>(outer: Option<&str>, name: &'a str) -> Option<(Runtime, &'a str)> {
    if is_hex_id(name) {
        let runtime = match outer {
            Some("docker") => Runtime::Docker,
            Some("k8s.io") => Runtime::Containerd,
            _ => Runtime::Unnamed,
        };
        return Some((runtime, name));
    }
    // runc accepts `slice:prefix:id` for systemd. With the cgroupfs driver, this becomes a directory name.
    if let Some((rest, id)) = name.rsplit_once(':') {
        let prefix = rest.rsplit_once(':').map_or(rest, |(_, prefix)| prefix);
        return is_hex_id(id).then(|| (runtime_of_prefix(prefix), id));
    }
    // The conmon scopes (`crio-conmon-ID`, `libpod-conmon-ID`) contain the monitor, not the container.
    let (prefix, id) = name.strip_suffix(".scope").unwrap_or(name).rsplit_once('-')?;
    if !is_hex_id(id) || prefix.ends_with("conmon") {
        return None;
    }
    Some((runtime_of_prefix(prefix), id))
}

/// Returns the runtime whose scopes start with `prefix`.
fn runtime_of_prefix(prefix: &str) -> Runtime {
    match prefix {
        "docker" => Runtime::Docker,
        "cri-containerd" | "containerd" | "nerdctl" => Runtime::Containerd,
        "crio" => Runtime::CriO,
        // `libpod-payload-ID` is the container's part of a unit that Podman splits (`--cgroups=split`).
        "libpod" | "libpod-payload" => Runtime::Podman,
        _ => Runtime::Unnamed,
    }
}

/// Parses a container name, for runtimes that use names instead of ids.
fn named_container<'a>(
    outer: Option<&str>,
    name: &'a str,
    inner: Option<&str>,
) -> Option<(Runtime, Cow<'a, str>)> {
    if let Some(name) = name.strip_prefix("lxc.payload.") {
        return Some((Runtime::Lxc, name.into()));
    }
    if outer == Some("lxc") {
        return Some((Runtime::Lxc, name.into()));
    }
    // nspawn itself runs in `supervisor` and the container in `payload`.
    if inner == Some("supervisor") {
        return None;
    }
    if let Some(name) = name.strip_prefix("systemd-nspawn@").and_then(|name| name.strip_suffix(".service")) {
        return Some((Runtime::Nspawn, unescape(name)?));
    }
    let name = name.strip_prefix("machine-")?.strip_suffix(".scope")?;
    outer?.strip_suffix(".slice")?;
    let name = unescape(name)?;
    // libvirt registers `DRIVER-NUMBER-NAME`. Its qemu machines are not containers.
    match libvirt_domain(&name) {
        Some(("lxc", domain)) => Some((Runtime::Lxc, domain.to_owned().into())),
        Some(_) => None,
        None => Some((Runtime::Nspawn, name)),
    }
}

/// Splits the name of a libvirt machine, `DRIVER-NUMBER-NAME`, into driver and name.
fn libvirt_domain(machine: &str) -> Option<(&str, &str)> {
    let (driver, rest) = machine.split_once('-')?;
    let (number, domain) = rest.split_once('-')?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    (matches!(driver, "lxc" | "qemu" | "xen" | "bhyve" | "ch") && is_number).then_some((driver, domain))
}

/// Returns the uid of the pod whose cgroup has this name.
fn pod_uid(name: &str) -> Option<String> {
    // `pod<uid>` (cgroupfs) or `kubepods-burstable-pod<uid>.slice`, optionally followed by a `:`.
    let name = name.split(':').next().unwrap_or(name);
    let uid = match name.strip_suffix(".slice") {
        Some(slice) if slice.contains("kubepods") => slice.rsplit_once("-pod")?.1,
        Some(_) => return None,
        None => name.strip_prefix("pod")?,
    };
    // A dash in a slice name means nesting, so the kubelet writes `_` instead.
    let uid = uid.replace('_', "-");
    is_pod_uid(&uid).then_some(uid)
}

/// Returns whether a text is the uid of a pod: a UUID, or for a static pod a hash without dashes.
pub(super) fn is_pod_uid(uid: &str) -> bool {
    let is_uuid = uid.len() == 36
        && uid.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => is_hex(byte),
        });
    let is_hash = uid.len() == 32 && uid.bytes().all(is_hex);
    is_uuid || is_hash
}

/// Returns the unit whose cgroup has this name.
fn unit(name: &str) -> Option<&str> {
    // systemd prefixes names that collide with kernel files with `_`.
    let name = name.strip_prefix('_').unwrap_or(name);
    let (stem, kind) = name.rsplit_once('.')?;
    let is_unit = matches!(kind, "service" | "scope" | "socket" | "mount" | "swap")
        && (1..=255).contains(&name.len())
        && !stem.is_empty()
        && stem.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte));
    is_unit.then_some(name)
}

/// Decodes systemd's `\xHH` escapes; `None` if the result is not UTF-8 or an escape is invalid.
fn unescape(name: &str) -> Option<Cow<'_, str>> {
    if !name.contains('\\') {
        return Some(name.into());
    }
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first != b'\\' {
            bytes.push(*first);
            rest = tail;
            continue;
        }
        let [b'x', high, low, tail @ ..] = tail else {
            return None;
        };
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        bytes.push((digit(*high)? << 4) | digit(*low)?);
        rest = tail;
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

pub(super) fn is_hex_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(is_hex)
}

/// Returns whether a text can be the name of a container: 1 to 255 of `A-Z a-z 0-9 . _ -`, without a leading dot.
pub(super) fn is_name(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && !text.starts_with('.')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

#[cfg(test)]
mod tests;
