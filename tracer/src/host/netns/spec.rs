//! `--netns PATH|INODE|self`.

use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    str::FromStr,
};

use rustix::io::Errno;

use super::enumerate::open_namespace;

/// A network namespace as a user names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetnsSpec {
    /// `self`: the one this program runs in.
    Own,
    /// By its inode, as output shows it.
    Inode(u32),
    /// By a file, such as `/run/netns/NAME` or `/proc/PID/ns/net`.
    Path(PathBuf),
}

/// Why a [`NetnsSpec`] names no network namespace.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// The path cannot be opened.
    #[error(
        "cannot open the network namespace {path:?}: {cause}; give a file such as /run/netns/NAME or /proc/PID/ns/net, an inode, or `self`"
    )]
    Open {
        /// As given.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        cause: std::io::Error,
    },
    /// The path is something else.
    #[error(
        "{path:?} is not a network namespace; give a file such as /run/netns/NAME or /proc/PID/ns/net, an inode, or `self`"
    )]
    NotANamespace {
        /// As given.
        path: PathBuf,
    },
}

/// Takes `self`, a decimal number of at most 32 bits as an inode, and anything else as a path; a file
/// named like one of the first two is `./self`. Whether it exists, [`NetnsSpec::inode`] finds out.
pub fn parse_spec(text: &str) -> NetnsSpec {
    if text == "self" {
        return NetnsSpec::Own;
    }
    match crate::host::process::files::number(text.as_bytes()) {
        Some(inode) => NetnsSpec::Inode(inode),
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
    /// The inode of the namespace. One that is given as a number is taken as it is: it may belong to
    /// a namespace that comes later, or to a recording.
    ///
    /// # Errors
    ///
    /// [`NetnsError`] when the path is no network namespace.
    pub fn inode(&self) -> Result<u32, NetnsError> {
        let path = match self {
            Self::Own => Path::new("/proc/self/ns/net"),
            Self::Inode(inode) => return Ok(*inode),
            Self::Path(path) => path,
        };
        match open_namespace(path) {
            Ok((_, inode)) => Ok(inode),
            Err(Errno::INVAL) => Err(NetnsError::NotANamespace { path: path.to_owned() }),
            Err(cause) => Err(NetnsError::Open { path: path.to_owned(), cause: cause.into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn three_ways_to_name_one() {
        assert_eq!(parse_spec("self"), NetnsSpec::Own);
        assert_eq!(parse_spec("4026531840"), NetnsSpec::Inode(4_026_531_840));
        for path in ["/run/netns/a", "./self", "99999999999", "-1", "", "blue"] {
            assert_eq!(parse_spec(path), NetnsSpec::Path(path.into()));
        }
    }

    #[test]
    fn resolves_to_the_inode() {
        let own = u32::try_from(std::fs::metadata("/proc/self/ns/net").unwrap().ino()).unwrap();
        assert_eq!(parse_spec("self").inode().unwrap(), own);
        assert_eq!(parse_spec("/proc/thread-self/ns/net").inode().unwrap(), own);
        assert_eq!(parse_spec("7").inode().unwrap(), 7);
    }

    #[test]
    fn errors_say_what_why_and_what_to_do() {
        let error = |text: &str| parse_spec(text).inode().unwrap_err().to_string();
        let remedy = "; give a file such as /run/netns/NAME or /proc/PID/ns/net, an inode, or `self`";
        assert_eq!(
            error("/run/netns/no\x1bsuch"),
            format!(
                r#"cannot open the network namespace "/run/netns/no\u{{1b}}such": No such file or directory (os error 2){remedy}"#
            )
        );
        for path in ["/dev/null", "/proc/self/ns/mnt", "/"] {
            assert_eq!(error(path), format!("{path:?} is not a network namespace{remedy}"));
        }
        assert!(error("").starts_with("cannot open the network namespace \"\": "));
    }

    proptest! {
        #[test]
        fn any_text_is_taken(text in any::<String>()) {
            let _ = parse_spec(&text);
        }
    }
}
