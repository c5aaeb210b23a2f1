//! Reads the lists of the opt-in labels, and connects the cgroup labels to the host.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tracer_core::event::{CgroupId, Process, Timestamp};

use crate::{
    agent::metrics::{CgroupLookup, Label, LabelSources, LineError, Networks, Services},
    host::{Cgroup, CgroupResolver},
};

/// A list that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListError {
    #[error("the list {path} cannot be read: {error}; check its path and that this user may read it")]
    Read { path: String, error: std::io::Error },
    #[error("{path}:{line}: {reason}")]
    Line { path: String, line: usize, reason: String },
}

/// Builds the label sources from the requested labels. `remote_cidr` and `service` come with their list's file.
pub(crate) fn read(requests: &[(Label, Option<PathBuf>)]) -> Result<LabelSources, ListError> {
    let labels: Vec<Label> = requests.iter().map(|(label, _)| *label).collect();
    let mut sources = LabelSources::new(&labels);
    for (label, list) in requests {
        let list = list.as_deref().unwrap_or(Path::new(""));
        sources = match label {
            Label::RemoteCidr => sources.with_networks(read_list(list, Networks::parse)?),
            Label::Service => sources.with_services(read_list(list, Services::parse)?),
            _ => sources,
        };
    }
    Ok(sources)
}

fn read_list<T>(path: &Path, parse: fn(&str) -> Result<T, LineError>) -> Result<T, ListError> {
    let shown = path.display().to_string();
    let text = fs::read_to_string(path).map_err(|error| ListError::Read { path: shown.clone(), error })?;
    parse(&text).map_err(|LineError { line, reason }| ListError::Line { path: shown, line, reason })
}

impl CgroupLookup for CgroupResolver {
    fn note(&mut self, cgroup_id: Option<CgroupId>, process: Option<&Process>, now: Timestamp) {
        self.note(cgroup_id, process, Duration::from_nanos(now.0));
    }

    fn cgroup(
        &mut self,
        cgroup_id: Option<CgroupId>,
        process: Option<&Process>,
        now: Timestamp,
    ) -> Option<Arc<Cgroup>> {
        self.cgroup(cgroup_id, process, Duration::from_nanos(now.0))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn an_error_gives_the_file_the_line_and_the_remedy() {
        let request = |label, path: &Path| read(&[(label, Some(path.to_owned()))]).unwrap_err().to_string();
        let services = file("web 80\ndb\n");
        let error = request(Label::Service, services.path());
        assert!(error.starts_with(&format!("{}:2: `db` has no ports", services.path().display())), "{error}");
        let networks = file("10.0.0/8 x\n");
        let error = request(Label::RemoteCidr, networks.path());
        assert!(error.contains(":1: `10.0.0/8`"), "{error}");
        let error = request(Label::RemoteCidr, Path::new("/no/such/list"));
        assert!(error.contains("/no/such/list") && error.contains("check its path"), "{error}");
    }
}
