//! Parses the names that a kubelet gives to files of logs, and derives the workload of a pod. Pure: it reads only names.
//!
//! The kubelet writes the log of a container below `/var/log/pods/NAMESPACE_POD_UID/CONTAINER/`, and links to it from
//! `/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log` (kubernetes, `pkg/kubelet/kuberuntime`: `legacy.go` and
//! `helpers.go`). Names of Kubernetes have no underscore.

use std::fmt;

use crate::host::container::{is_hex_id, is_pod_uid};

/// The longest name of an object of Kubernetes, bytes: a DNS subdomain.
const MAX_NAME: usize = 253;
/// The longest generated name, bytes (apiserver, `names.maxNameLength`). Kubernetes cuts the part before the random end.
const MAX_GENERATED: usize = 63;
/// Length of the random end of a generated name.
const RANDOM: usize = 5;

/// The kind of workload that a pod belongs to, as far as the form of the pod's name shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WorkloadKind {
    /// A Deployment, or another controller that names its pods alike, such as a Rollout of Argo.
    Deployment,
    /// A StatefulSet.
    StatefulSet,
    /// A CronJob.
    CronJob,
    /// A static pod: a manifest on the node.
    StaticPod,
}

impl WorkloadKind {
    /// Returns the name for output: `deployment`, `statefulset`, `cronjob`, `static_pod`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::StatefulSet => "statefulset",
            Self::CronJob => "cronjob",
            Self::StaticPod => "static_pod",
        }
    }
}

/// The names of a pod. Each consists of `a-z 0-9 - .` and has at most 253 bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct PodNames {
    /// `NAMESPACE/POD`. The name of the workload begins the name of the pod.
    text: Box<str>,
    namespace_end: usize,
    workload_end: usize,
    kind: Option<WorkloadKind>,
}

impl PodNames {
    /// Returns the names of a pod, and derives its workload. `uid` is that of the pod, if known; `node` the name of the node.
    /// Returns `None` if a name is not one of Kubernetes.
    pub fn new(namespace: &str, pod: &str, uid: Option<&str>, node: &str) -> Option<Self> {
        if !is_kubernetes_name(namespace) || !is_kubernetes_name(pod) {
            return None;
        }
        let (workload, kind) = workload(pod, uid, node);
        let namespace_end = namespace.len();
        Some(Self {
            text: format!("{namespace}/{pod}").into(),
            namespace_end,
            workload_end: namespace_end + 1 + workload.len(),
            kind,
        })
    }

    /// Returns the namespace.
    pub fn namespace(&self) -> &str {
        &self.text[..self.namespace_end]
    }

    /// Returns the name of the pod.
    pub fn pod(&self) -> &str {
        &self.text[self.namespace_end + 1..]
    }

    /// Returns `NAMESPACE/POD`.
    pub fn qualified_pod(&self) -> &str {
        &self.text
    }

    /// Returns the name of the workload, derived from the name of the pod.
    pub fn workload(&self) -> &str {
        &self.text[self.namespace_end + 1..self.workload_end]
    }

    /// Returns `NAMESPACE/WORKLOAD`.
    pub fn qualified_workload(&self) -> &str {
        &self.text[..self.workload_end]
    }

    /// Returns the kind of the workload; `None` if the name of the pod has a form of several kinds, or of none.
    pub fn workload_kind(&self) -> Option<WorkloadKind> {
        self.kind
    }
}

impl fmt::Debug for PodNames {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.map_or("-", WorkloadKind::name);
        write!(formatter, "{} of {kind} {}", self.text, self.workload())
    }
}

/// The content of the name of a link in `/var/log/containers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ContainerLog<'a> {
    pub(super) pod: &'a str,
    pub(super) namespace: &'a str,
    pub(super) container: &'a str,
    pub(super) id: &'a str,
}

impl<'a> ContainerLog<'a> {
    /// Parses `POD_NAMESPACE_CONTAINER-ID.log`. The kubelet cuts names of more than 255 bytes; those have no id.
    pub(super) fn parse(name: &'a str) -> Option<Self> {
        let (pod, rest) = name.strip_suffix(".log")?.split_once('_')?;
        let (namespace, rest) = rest.split_once('_')?;
        let (container, id) = rest.rsplit_once('-')?;
        (is_kubernetes_name(container) && is_hex_id(id)).then_some(Self { pod, namespace, container, id })
    }
}

/// The content of the name of a folder in `/var/log/pods`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PodFolder<'a> {
    pub(super) namespace: &'a str,
    pub(super) pod: &'a str,
    pub(super) uid: &'a str,
}

impl<'a> PodFolder<'a> {
    /// Parses `NAMESPACE_POD_UID`.
    pub(super) fn parse(name: &'a str) -> Option<Self> {
        let (namespace, rest) = name.split_once('_')?;
        let (pod, uid) = rest.split_once('_')?;
        is_pod_uid(uid).then_some(Self { namespace, pod, uid })
    }
}

fn is_kubernetes_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len())
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'))
}

/// Derives the workload of a pod from the form of the pod's name. The result begins the name.
fn workload<'a>(pod: &'a str, uid: Option<&str>, node: &str) -> (&'a str, Option<WorkloadKind>) {
    // The uid of a static pod is a hash of its manifest.
    let is_static = uid.map(|uid| !uid.contains('-'));
    if is_static != Some(false)
        && let Some(name) = without_node(pod, node)
    {
        return (name, Some(WorkloadKind::StaticPod));
    }
    if is_static == Some(true) {
        return (pod, Some(WorkloadKind::StaticPod));
    }
    let Some(generated) = without_random_end(pod) else {
        return match pod.rsplit_once('-') {
            Some((name, ordinal)) if !name.is_empty() && is_ordinal(ordinal) => {
                (name, Some(WorkloadKind::StatefulSet))
            }
            _ => (pod, None),
        };
    };
    match generated.rsplit_once('-') {
        Some((name, minutes)) if !name.is_empty() && is_minutes(minutes) => {
            (name, Some(WorkloadKind::CronJob))
        }
        Some((name, hash)) if !name.is_empty() && is_template_hash(hash) => {
            (name, Some(WorkloadKind::Deployment))
        }
        _ => (generated, None),
    }
}

/// Returns the name of a static pod without `-NODE`, which the kubelet appends in lower case.
fn without_node<'a>(pod: &'a str, node: &str) -> Option<&'a str> {
    let node = node.to_ascii_lowercase();
    let short = node.split('.').next().unwrap_or_default();
    [node.as_str(), short]
        .into_iter()
        .filter(|node| !node.is_empty())
        .find_map(|node| pod.strip_suffix(node)?.strip_suffix('-'))
        .filter(|name| !name.is_empty())
}

/// Returns a generated name without its random end. A name of the maximum length may have lost the dash before it.
fn without_random_end(pod: &str) -> Option<&str> {
    let at = pod.len().checked_sub(RANDOM)?;
    let (base, random) = (pod.get(..at)?, pod.get(at..)?);
    if !random.bytes().all(is_safe) {
        return None;
    }
    let base = match base.strip_suffix('-') {
        Some(base) => base,
        None if pod.len() == MAX_GENERATED => base,
        None => return None,
    };
    (!base.is_empty()).then_some(base)
}

/// Returns whether a byte occurs in the random ends of names (apimachinery, `rand.SafeEncodeString`).
fn is_safe(byte: u8) -> bool {
    b"bcdfghjklmnpqrstvwxz2456789".contains(&byte)
}

/// Returns whether a text is the hash of a pod template: a decimal number of 32 bits, each digit of which
/// `rand.SafeEncodeString` replaces. Shorter ones exist, one in 40,000.
fn is_template_hash(text: &str) -> bool {
    (6..=10).contains(&text.len()) && text.bytes().all(|byte| b"456789bcdf".contains(&byte))
}

/// Returns whether a text is the time of a CronJob's run: minutes since 1970, from 1989 to 2160.
fn is_minutes(text: &str) -> bool {
    text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0')
}

fn is_ordinal(text: &str) -> bool {
    (1..=9).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'))
}

#[cfg(test)]
mod tests;
