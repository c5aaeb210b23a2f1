//! The names of the traced host.

/// The names of a host and of what traced it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostNames {
    /// Its node name, as `uname -n` gives it.
    pub name: String,
    /// The release of its kernel, as `uname -r` gives it.
    pub kernel: String,
    /// The mode it was traced in.
    pub mode: String,
}

impl HostNames {
    /// This host, traced in `mode`.
    pub fn this(mode: &str) -> Self {
        let names = rustix::system::uname();
        Self {
            name: names.nodename().to_string_lossy().into_owned(),
            kernel: names.release().to_string_lossy().into_owned(),
            mode: mode.to_owned(),
        }
    }
}
