//! Which container, pod and systemd unit a cgroup path stands for. Pure: it looks at names only.
//!
//! Every runtime writes the container's id into the name of the cgroup it makes, each in its own way;
//! the unit tests list the layouts, one row for each.

use std::{borrow::Cow, fmt};

/// What wrote a container's id into a cgroup path.
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
    /// The path holds a container id and does not say whose: Kubernetes with the cgroupfs driver, or
    /// Docker with a parent cgroup of its own.
    Unnamed,
}

impl Runtime {
    /// The name for output: `docker`, `containerd`, `cri-o`, `podman`, `lxc`, `nspawn`, `unnamed`.
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

/// A container, as its cgroup names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Container {
    /// The full id. Of [`Runtime::Lxc`] and [`Runtime::Nspawn`] the container's name, 1 to 255 of
    /// `A-Z a-z 0-9 . _ -`, no dot in front; of all others 64 lower-case hexadecimal digits.
    pub id: String,
    /// What made it.
    pub runtime: Runtime,
}

/// What a cgroup path says about the processes in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupOwner {
    /// The container; of nested ones the innermost.
    pub container: Option<Container>,
    /// Uid of the Kubernetes pod, as `metadata.uid` gives it (static pods: 32 hexadecimal digits
    /// without dashes); of nested ones the innermost.
    pub pod_uid: Option<String>,
    /// The innermost systemd unit (service, scope, socket, mount or swap) that is not itself a
    /// container, under the name `systemctl` takes, escapes such as `\x2d` included.
    pub unit: Option<String>,
}

impl CgroupOwner {
    /// Reads a path within a cgroup hierarchy, as `/proc/PID/cgroup` or
    /// [`CgroupPaths`](super::CgroupPaths) gives it. Any string will do; what means nothing is skipped.
    pub fn from_path(path: &str) -> Self {
        let mut owner = Self::default();
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        // From the inside out, so the first find is the innermost.
        for (at, name) in parts.iter().enumerate().rev() {
            let outer = at.checked_sub(1).and_then(|at| parts.get(at)).copied();
            owner.look_at(outer, name, parts.get(at + 1).copied());
        }
        owner
    }

    /// Takes what the directory `name` in `outer` tells; `inner` is the next directory on the path.
    fn look_at(&mut self, outer: Option<&str>, name: &str, inner: Option<&str>) {
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

/// The container whose cgroup is `outer`/`name`.
fn container(outer: Option<&str>, name: &str, inner: Option<&str>) -> Option<Container> {
    if let Some((runtime, id)) = hex_container(outer, name) {
        return Some(Container { id: id.to_owned(), runtime });
    }
    let (runtime, id) = named_container(outer, name, inner)?;
    is_name(&id).then(|| Container { id: id.into_owned(), runtime })
}

/// Containers with an id of 64 hexadecimal digits.
fn hex_container<'a>(outer: Option<&str>, name: &'a str) -> Option<(Runtime, &'a str)> {
    if is_hex_id(name) {
        let runtime = match outer {
            Some("docker") => Runtime::Docker,
            Some("k8s.io") => Runtime::Containerd,
            _ => Runtime::Unnamed,
        };
        return Some((runtime, name));
    }
    // runc takes `slice:prefix:id` for systemd; with the cgroupfs driver it ends up as a directory name.
    if let Some((rest, id)) = name.rsplit_once(':') {
        let prefix = rest.rsplit_once(':').map_or(rest, |(_, prefix)| prefix);
        return is_hex_id(id).then(|| (runtime_of_prefix(prefix), id));
    }
    // The conmon scopes (`crio-conmon-ID`, `libpod-conmon-ID`) hold the monitor, not the container.
    let (prefix, id) = name.strip_suffix(".scope").unwrap_or(name).rsplit_once('-')?;
    if !is_hex_id(id) || prefix.ends_with("conmon") {
        return None;
    }
    Some((runtime_of_prefix(prefix), id))
}

/// Whose scopes begin with `prefix`.
fn runtime_of_prefix(prefix: &str) -> Runtime {
    match prefix {
        "docker" => Runtime::Docker,
        "cri-containerd" | "containerd" | "nerdctl" => Runtime::Containerd,
        "crio" => Runtime::CriO,
        // `libpod-payload-ID` is the container's half of a unit that Podman splits (`--cgroups=split`).
        "libpod" | "libpod-payload" => Runtime::Podman,
        _ => Runtime::Unnamed,
    }
}

/// Containers that the path gives a name, not an id.
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
    // nspawn keeps itself in `supervisor` and the container in `payload`.
    if inner == Some("supervisor") {
        return None;
    }
    if let Some(name) = name.strip_prefix("systemd-nspawn@").and_then(|name| name.strip_suffix(".service")) {
        return Some((Runtime::Nspawn, unescape(name)?));
    }
    let name = name.strip_prefix("machine-")?.strip_suffix(".scope")?;
    outer?.strip_suffix(".slice")?;
    let name = unescape(name)?;
    // libvirt registers `DRIVER-NUMBER-NAME`; its qemu machines are no containers.
    match libvirt_domain(&name) {
        Some(("lxc", domain)) => Some((Runtime::Lxc, domain.to_owned().into())),
        Some(_) => None,
        None => Some((Runtime::Nspawn, name)),
    }
}

/// Driver and name of a libvirt machine `DRIVER-NUMBER-NAME`.
fn libvirt_domain(machine: &str) -> Option<(&str, &str)> {
    let (driver, rest) = machine.split_once('-')?;
    let (number, domain) = rest.split_once('-')?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    (matches!(driver, "lxc" | "qemu" | "xen" | "bhyve" | "ch") && is_number).then_some((driver, domain))
}

/// The uid of the pod whose cgroup is called `name`.
fn pod_uid(name: &str) -> Option<String> {
    // `pod<uid>` (cgroupfs), `kubepods-burstable-pod<uid>.slice`, and the same before a `:`.
    let name = name.split(':').next().unwrap_or(name);
    let uid = match name.strip_suffix(".slice") {
        Some(slice) if slice.contains("kubepods") => slice.rsplit_once("-pod")?.1,
        Some(_) => return None,
        None => name.strip_prefix("pod")?,
    };
    // A dash in a slice's name means nesting, so the kubelet writes `_` instead.
    let uid = uid.replace('_', "-");
    let is_uuid = uid.len() == 36
        && uid.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => is_hex(byte),
        });
    let is_hash = uid.len() == 32 && uid.bytes().all(is_hex);
    (is_uuid || is_hash).then_some(uid)
}

/// The unit whose cgroup is called `name`.
fn unit(name: &str) -> Option<&str> {
    // systemd puts a `_` before names that collide with kernel files, and takes it off again.
    let name = name.strip_prefix('_').unwrap_or(name);
    let (stem, kind) = name.rsplit_once('.')?;
    let is_unit = matches!(kind, "service" | "scope" | "socket" | "mount" | "swap")
        && (1..=255).contains(&name.len())
        && !stem.is_empty()
        && stem.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte));
    is_unit.then_some(name)
}

/// Undoes systemd's `\xHH`; `None` when the result is not UTF-8 or an escape is broken.
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

fn is_hex_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(is_hex)
}

fn is_name(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && !text.starts_with('.')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

#[cfg(test)]
mod tests;
