//! The columns of the process and the cgroups.

use std::time::Duration;

use tracer_core::{
    escape::{escape, is_plain as is_plain_text},
    event::{CgroupId, Process, ThreadName},
};

use crate::{
    host::{Cgroup, CgroupResolver},
    recording::writer::{
        batches::Batches,
        interner::Interner,
        sparse::{Rare, Sparse, Values},
        validity::Validity,
    },
};

/// The columns of the process and the cgroups.
#[derive(Debug, Default)]
pub(super) struct Owners {
    owned: Validity,
    pid: Values<u32>,
    uid: Values<u32>,
    process: Values<i32>,
    processes: Interner<u128>,
    /// Whether the text of each process name differs from its bytes.
    escaped_processes: Vec<bool>,
    process_raw: Rare,
    cgroup_id: Sparse<u64>,
    cgroup: Sparse<i32>,
    cgroups: Interner<CgroupId>,
    /// The last cgroup and its index.
    last_cgroup: Option<(CgroupId, i32)>,
    /// The root of the hierarchy, which says nothing about the owner of a socket.
    root_id: Option<CgroupId>,
    process_cgroup: Sparse<i32>,
    process_cgroups: Interner<String>,
    thread: Sparse<i32>,
    threads: Interner<u128>,
    thread_raw: Rare,
    names: NameColumns,
    /// The names of each cgroup in `cgroups`.
    cgroup_names: Vec<NameIndices>,
}

/// The columns of the names of containers and pods.
#[derive(Debug, Default)]
struct NameColumns {
    container: Sparse<i32>,
    containers: Interner<String>,
    namespace: Sparse<i32>,
    namespaces: Interner<String>,
    pod: Sparse<i32>,
    pods: Interner<String>,
}

/// The indices of the names of a cgroup's container and pod.
#[derive(Clone, Copy, Debug, Default)]
struct NameIndices {
    container: Option<i32>,
    /// The namespace and the name.
    pod: Option<(i32, i32)>,
    /// A name may become known later.
    is_incomplete: bool,
}

impl NameColumns {
    /// Returns the indices of the names of a cgroup that are known.
    fn indices(&mut self, cgroup: &Cgroup) -> NameIndices {
        let container = cgroup.names.container().map(|name| text_index(&mut self.containers, name));
        let pod = cgroup.pod().map(|pod| {
            (text_index(&mut self.namespaces, pod.namespace()), text_index(&mut self.pods, pod.pod()))
        });
        NameIndices { container, pod, is_incomplete: cgroup.lacks_names() }
    }

    fn put(&mut self, row: usize, indices: NameIndices) {
        self.container.put_optional(row, indices.container);
        if let Some((namespace, pod)) = indices.pod {
            self.namespace.put(row, namespace);
            self.pod.put(row, pod);
        }
    }
}

/// Returns the index of a text, which it adds if it is new.
fn text_index(texts: &mut Interner<String>, text: &str) -> i32 {
    texts
        .known(text)
        .unwrap_or_else(|| texts.index(text.to_owned(), |to| to.extend_from_slice(text.as_bytes())))
}

impl Owners {
    /// Adds the cgroup of a socket. Returns whether it has a path other than the root.
    pub(super) fn put_cgroup(
        &mut self,
        row: usize,
        id: CgroupId,
        process: Option<&Process>,
        now: Duration,
        resolver: &mut CgroupResolver,
    ) -> bool {
        self.cgroup_id.put(row, id.0);
        let last = self.last_cgroup.and_then(|(last, index)| (last == id).then_some(index));
        let index = if let Some(index) = last.or_else(|| self.cgroups.known(&id)) {
            index
        } else if let Some(cgroup) = resolver.of_id(id, now) {
            if cgroup.path == "/" {
                self.root_id = Some(id);
            }
            let names = self.names.indices(&cgroup);
            self.cgroup_names.push(names);
            self.cgroups.index(id, |to| to.extend_from_slice(cgroup.path.as_bytes()))
        } else {
            return false;
        };
        self.last_cgroup = Some((id, index));
        self.cgroup.put(row, index);
        let at = usize::try_from(index).unwrap_or(usize::MAX);
        if let Some(names) = self.cgroup_names.get_mut(at) {
            if names.is_incomplete
                && let Some(cgroup) = resolver.cgroup(Some(id), process, now)
            {
                *names = self.names.indices(&cgroup);
            }
            self.names.put(row, *names);
        }
        self.root_id != Some(id)
    }

    pub(super) fn put_process(&mut self, row: usize, process: &Process) {
        let Self { processes, escaped_processes, .. } = self;
        let index = processes.index(u128::from_le_bytes(process.comm), |to| {
            to.extend_from_slice(escape(process.name()).as_bytes());
            escaped_processes.push(!is_plain(process.name(), &process.comm));
        });
        self.owned.put(row);
        self.pid.put(process.pid);
        self.uid.put(process.uid);
        self.process.put(index);
        if usize::try_from(index).is_ok_and(|index| self.escaped_processes.get(index) == Some(&true)) {
            self.process_raw.put(row, process.comm);
        }
    }

    pub(super) fn put_thread(&mut self, row: usize, thread: ThreadName) {
        let index = self.threads.index(u128::from_le_bytes(thread.0), |to| {
            to.extend_from_slice(escape(thread.name()).as_bytes());
        });
        self.thread.put(row, index);
        if !is_plain(thread.name(), &thread.0) {
            self.thread_raw.put(row, thread.0);
        }
    }

    /// Adds the cgroup of a process.
    pub(super) fn put_process_cgroup(&mut self, row: usize, cgroup: &Cgroup) {
        let index = text_index(&mut self.process_cgroups, &cgroup.path);
        self.process_cgroup.put(row, index);
        let names = self.names.indices(cgroup);
        self.names.put(row, names);
    }

    /// Writes the dictionaries, numbered from `first`.
    pub(super) fn write_dictionaries(&mut self, first: i64, to: &mut Batches, out: &mut Vec<u8>) {
        self.processes.write(first, to, out);
        self.cgroups.write(first + 1, to, out);
        self.process_cgroups.write(first + 2, to, out);
        self.threads.write(first + 3, to, out);
        self.escaped_processes.clear();
        self.last_cgroup = None;
    }

    /// Writes the dictionaries of the names of containers and pods, numbered from `first`.
    pub(super) fn write_name_dictionaries(&mut self, first: i64, to: &mut Batches, out: &mut Vec<u8>) {
        self.names.containers.write(first, to, out);
        self.names.namespaces.write(first + 1, to, out);
        self.names.pods.write(first + 2, to, out);
        self.cgroup_names.clear();
    }

    /// Writes the columns of the names of containers and pods.
    pub(super) fn write_names(&mut self, to: &mut Batches) {
        self.names.container.write(to);
        self.names.namespace.write(to);
        self.names.pod.write(to);
    }

    /// Writes the columns from `pid` to `process_raw`, and clears them.
    pub(super) fn write_processes(&mut self, to: &mut Batches) {
        self.pid.write(&mut self.owned, to);
        self.uid.write(&mut self.owned, to);
        self.process.write(&mut self.owned, to);
        self.process_raw.write(to);
        self.owned.clear();
    }

    /// Writes the columns of the thread.
    pub(super) fn write_threads(&mut self, to: &mut Batches) {
        self.thread.write(to);
        self.thread_raw.write(to);
    }

    /// Writes the columns from `cgroup_id` to `process_cgroup`, and clears them.
    pub(super) fn write_cgroups(&mut self, to: &mut Batches) {
        self.cgroup_id.write(to);
        self.cgroup.write(to);
        self.process_cgroup.write(to);
    }
}

/// Returns whether the text of the name gives its 16 bytes back.
fn is_plain(name: &[u8], comm: &[u8; 16]) -> bool {
    is_plain_text(name) && comm[name.len()..].iter().all(|&byte| byte == 0)
}
