//! The sockets that HTTP is served on.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net as unix,
    },
    path::{Path, PathBuf},
};

use tokio::net::{TcpListener, UnixListener};

use super::ListenAddress;

/// A socket that is bound and not served yet.
#[derive(Debug)]
pub(crate) enum Bound {
    Tcp(std::net::TcpListener, SocketAddr),
    Unix(unix::UnixListener, SocketFile),
}

/// A socket that clients are accepted from.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, SocketFile),
}

/// The file of a Unix socket, which goes with it.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // The directory may have been closed to this process; then it stays and is taken over next time.
        let _ = fs::remove_file(&self.0);
    }
}

impl Bound {
    /// Binds.
    pub(crate) fn new(address: &ListenAddress) -> anyhow::Result<Self> {
        match address {
            ListenAddress::Tcp(address) => {
                let listener = std::net::TcpListener::bind(address).map_err(|error| {
                    anyhow::anyhow!("cannot listen on {address}: {error}; {}", tcp_remedy(*address, &error))
                })?;
                let bound = listener.local_addr().unwrap_or(*address);
                Ok(Self::Tcp(listener, bound))
            }
            ListenAddress::Unix(path) => {
                let listener = bind_unix(path).map_err(|error| {
                    let shown = path.display();
                    anyhow::anyhow!("cannot listen on unix:{shown}: {error}; {}", unix_remedy(path, &error))
                })?;
                Ok(Self::Unix(listener, SocketFile(path.clone())))
            }
        }
    }

    /// Gives the socket to the runtime that this is called in.
    pub(crate) fn listen(self) -> io::Result<Listener> {
        Ok(match self {
            Self::Tcp(listener, address) => {
                listener.set_nonblocking(true)?;
                Listener::Tcp(TcpListener::from_std(listener)?, address)
            }
            Self::Unix(listener, file) => {
                listener.set_nonblocking(true)?;
                Listener::Unix(UnixListener::from_std(listener)?, file)
            }
        })
    }
}

impl Listener {
    /// Where it listens, for the log.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Tcp(_, address) => address.to_string(),
            Self::Unix(_, SocketFile(path)) => format!("unix:{}", path.display()),
        }
    }
}

fn tcp_remedy(address: SocketAddr, error: &io::Error) -> String {
    let port = address.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => format!("free port {port}, or choose another --listen"),
        io::ErrorKind::PermissionDenied => {
            format!(
                "port {port} takes CAP_NET_BIND_SERVICE: grant it, or choose a --listen port from 1024 on"
            )
        }
        io::ErrorKind::AddrNotAvailable => {
            "choose a --listen address that this host has, as `ip address` shows them".to_owned()
        }
        _ => "choose another --listen".to_owned(),
    }
}

fn unix_remedy(path: &Path, error: &io::Error) -> String {
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new(".")).display();
    match error.kind() {
        io::ErrorKind::AddrInUse if path.symlink_metadata().is_ok_and(|it| !it.file_type().is_socket()) => {
            "that is a file and no socket: remove it, or choose another --listen".to_owned()
        }
        io::ErrorKind::AddrInUse => "end who uses it, or choose another --listen".to_owned(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            format!("make the directory {folder}, or choose another --listen")
        }
        io::ErrorKind::PermissionDenied => {
            format!("let this account write to the directory {folder}, or choose another --listen")
        }
        _ => "choose another --listen".to_owned(),
    }
}

/// Takes over the file of a socket that nobody serves any more.
fn bind_unix(path: &Path) -> io::Result<unix::UnixListener> {
    let listener = match unix::UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_abandoned(path) => {
            fs::remove_file(path)?;
            unix::UnixListener::bind(path)
        }
        other => other,
    }?;
    // The owner and the group, as the directory lets them in.
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Whether it is a socket without a server. Any other file refuses a connection, too.
fn is_abandoned(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    is_socket
        && unix::UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_used_port_is_named() {
        let used = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = used.local_addr().unwrap();
        let error = format!("{:#}", Bound::new(&ListenAddress::Tcp(address)).unwrap_err());
        assert!(error.contains(&address.to_string()) && error.contains("--listen"), "{error}");
        assert!(error.contains(&format!("free port {}", address.port())), "{error}");
    }

    #[test]
    fn each_cause_has_its_own_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let unix = |path: PathBuf| ListenAddress::Unix(path);
        for (address, part) in [
            // Of the addresses for documentation (RFC 5737) no host has any.
            ("192.0.2.1:10793".parse().unwrap(), "`ip address`"),
            (unix(folder.path().join("none/socket")), "make the directory"),
            (unix(file.join("socket")), "make the directory"),
            (unix(file.clone()), "no socket: remove it"),
            (unix(PathBuf::from("x".repeat(200))), "choose another --listen"),
        ] {
            let error = format!("{:#}", Bound::new(&address).unwrap_err());
            assert!(error.contains(part) && !error.contains("free port"), "{part}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let remedy = tcp_remedy("127.0.0.1:80".parse().unwrap(), &denied);
        assert!(remedy.contains("CAP_NET_BIND_SERVICE") && !remedy.contains("free"), "{remedy}");
        assert!(unix_remedy(Path::new("/run/x/socket"), &denied).contains("/run/x"));
    }

    #[test]
    fn an_abandoned_socket_is_taken_over_and_a_used_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let address = ListenAddress::Unix(path.clone());
        drop(unix::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let bound = Bound::new(&address).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        let error = format!("{:#}", Bound::new(&address).unwrap_err());
        assert!(error.contains("end who uses it"), "{error}");
        drop(bound);
        assert!(!path.exists());
        fs::write(&path, "a file of somebody").unwrap();
        assert!(Bound::new(&address).is_err() && path.exists());
    }
}
