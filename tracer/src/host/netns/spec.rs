//! The value of `--netns NAME|PATH|INODE|self`.

use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    str::FromStr,
};

use rustix::io::Errno;
use tracer_core::event::Netns;

use super::enumerate::open_namespace;

/// A network namespace as given by the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetnsSpec {
    /// `self`: the namespace of this process.
    Own,
    /// An inode, as shown in the output.
    Inode(Netns),
    /// A file, such as `/proc/PID/ns/net`, or a name in `/run/netns`, where `ip netns` keeps namespaces.
    Path(PathBuf),
}

/// Why a [`NetnsSpec`] does not identify a network namespace.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// The path cannot be opened.
    #[error(
        "cannot open the network namespace {path:?}: {cause}; give a name that `ip netns` lists, a file such as /proc/PID/ns/net, an inode, or `self`"
    )]
    Open {
        /// The path.
        path: PathBuf,
        /// The kernel's error.
        #[source]
        cause: std::io::Error,
    },
    /// The path is not a network namespace.
    #[error(
        "{path:?} is not a network namespace; give a name that `ip netns` lists, a file such as /proc/PID/ns/net, an inode, or `self`"
    )]
    NotANamespace {
        /// The path.
        path: PathBuf,
    },
}

/// The folder in which `ip netns` names network namespaces.
const NAMED: &str = "/run/netns";

/// Parses `self`, an inode (a decimal number of at most 32 bits), or a path (anything else). A file named `self` is
/// `./self`. [`NetnsSpec::inode`] checks that the namespace exists.
pub fn parse_spec(text: &str) -> NetnsSpec {
    if text == "self" {
        return NetnsSpec::Own;
    }
    match crate::host::process::files::number(text.as_bytes()) {
        Some(inode) => NetnsSpec::Inode(Netns(inode)),
        None => NetnsSpec::Path(text.into()),
    }
}

impl FromStr for NetnsSpec {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(parse_spec(text))
    }
}

impl NetnsSpec {
    /// Returns the inode of the namespace. A number is returned unchecked: it may refer to a future namespace or to a
    /// recording.
    ///
    /// # Errors
    ///
    /// [`NetnsError`] when the path is not a network namespace.
    pub fn inode(&self) -> Result<Netns, NetnsError> {
        let named;
        let path = match self {
            Self::Own => Path::new("/proc/self/ns/net"),
            Self::Inode(inode) => return Ok(*inode),
            Self::Path(path) => {
                named = Path::new(NAMED).join(path);
                if is_name(path) && (named.exists() || !path.exists()) { &named } else { path }
            }
        };
        match open_namespace(path) {
            Ok((_, inode)) => Ok(inode),
            Err(Errno::INVAL) => Err(NetnsError::NotANamespace { path: path.to_owned() }),
            Err(cause) => Err(NetnsError::Open { path: path.to_owned(), cause: cause.into() }),
        }
    }
}

/// Returns whether a path may be a name in [`NAMED`]: it has no folder.
fn is_name(path: &Path) -> bool {
    let mut parts = path.components();
    matches!((parts.next(), parts.next()), (Some(std::path::Component::Normal(name)), None) if name == path.as_os_str())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn self_inodes_and_paths_are_distinguished() {
        assert_eq!(parse_spec("self"), NetnsSpec::Own);
        assert_eq!(parse_spec("4026531840"), NetnsSpec::Inode(Netns(4_026_531_840)));
        for path in ["/run/netns/a", "./self", "99999999999", "-1", "", "blue"] {
            assert_eq!(parse_spec(path), NetnsSpec::Path(path.into()));
        }
    }

    #[test]
    fn a_namespace_resolves_to_its_inode() {
        let own = Netns(u32::try_from(std::fs::metadata("/proc/self/ns/net").unwrap().ino()).unwrap());
        assert_eq!(parse_spec("self").inode().unwrap(), own);
        assert_eq!(parse_spec("/proc/thread-self/ns/net").inode().unwrap(), own);
        assert_eq!(parse_spec("7").inode().unwrap(), Netns(7));
    }

    #[test]
    fn errors_name_the_path_the_cause_and_the_remedy() {
        let error = |text: &str| parse_spec(text).inode().unwrap_err().to_string();
        let remedy =
            "; give a name that `ip netns` lists, a file such as /proc/PID/ns/net, an inode, or `self`";
        assert_eq!(
            error("/run/netns/no\x1bsuch"),
            format!(
                r#"cannot open the network namespace "/run/netns/no\u{{1b}}such": No such file or directory (os error 2){remedy}"#
            )
        );
        for path in ["/dev/null", "/proc/self/ns/mnt", "/"] {
            assert_eq!(error(path), format!("{path:?} is not a network namespace{remedy}"));
        }
        assert!(
            error("no-such-name")
                .starts_with(r#"cannot open the network namespace "/run/netns/no-such-name": "#)
        );
        assert!(
            error("./no-such-file").starts_with(r#"cannot open the network namespace "./no-such-file": "#)
        );
        assert!(error("").starts_with("cannot open the network namespace \"\": "));
    }

    proptest! {
        #[test]
        fn any_text_parses(text in any::<String>()) {
            let _ = parse_spec(&text);
        }
    }
}
