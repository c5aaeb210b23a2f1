//! The names of the traced host.

/// The names of a host, its kernel, the tracing mode and the hooks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostNames {
    /// The node name (`uname -n`).
    pub name: String,
    /// The kernel release (`uname -r`).
    pub kernel: String,
    /// The tracing mode.
    pub mode: String,
    /// The names of the attached optional hooks, joined by commas.
    pub hooks: String,
}

impl HostNames {
    /// Returns the names of this host, traced in `mode` with these optional hooks.
    pub fn this(mode: &str, hooks: &[&str]) -> Self {
        let names = rustix::system::uname();
        Self {
            name: names.nodename().to_string_lossy().into_owned(),
            kernel: names.release().to_string_lossy().into_owned(),
            mode: mode.to_owned(),
            hooks: hooks.join(","),
        }
    }

    /// Returns whether the optional hook with this name was attached.
    pub fn has_hook(&self, name: &str) -> bool {
        self.hooks.split(',').any(|hook| hook == name)
    }
}
