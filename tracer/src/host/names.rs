//! The names of the traced host.

/// The names of a host, its kernel and the tracing mode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostNames {
    /// The node name (`uname -n`).
    pub name: String,
    /// The kernel release (`uname -r`).
    pub kernel: String,
    /// The tracing mode.
    pub mode: String,
}

impl HostNames {
    /// Returns the names of this host, traced in `mode`.
    pub fn this(mode: &str) -> Self {
        let names = rustix::system::uname();
        Self {
            name: names.nodename().to_string_lossy().into_owned(),
            kernel: names.release().to_string_lossy().into_owned(),
            mode: mode.to_owned(),
        }
    }
}
