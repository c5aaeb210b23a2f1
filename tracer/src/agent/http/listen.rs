//! The listening sockets of the HTTP server.

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

/// A bound listening socket that is not served yet.
#[derive(Debug)]
pub(crate) enum Bound {
    Tcp(std::net::TcpListener, SocketAddr),
    Unix(unix::UnixListener, SocketFile),
}

/// A listening socket that accepts clients.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, SocketFile),
}

/// The file of a Unix socket; removed on drop.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Without write access to the directory the file stays, and the next start replaces it.
        let _ = fs::remove_file(&self.0);
    }
}

impl Bound {
    /// Binds the socket.
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

    /// Registers the socket with the current tokio runtime.
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
    /// Returns the address for the log.
    pub(crate) fn address(&self) -> String {
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
                "port {port} needs CAP_NET_BIND_SERVICE: grant it, or choose a --listen port from 1024 on"
            )
        }
        io::ErrorKind::AddrNotAvailable => {
            "choose a --listen address of this host; `ip address` lists them".to_owned()
        }
        _ => "choose another --listen".to_owned(),
    }
}

fn unix_remedy(path: &Path, error: &io::Error) -> String {
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new(".")).display();
    match error.kind() {
        io::ErrorKind::AddrInUse if path.symlink_metadata().is_ok_and(|it| !it.file_type().is_socket()) => {
            "the path is not a socket: remove the file, or choose another --listen".to_owned()
        }
        io::ErrorKind::AddrInUse => "stop the process that uses it, or choose another --listen".to_owned(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            format!("make the directory {folder}, or choose another --listen")
        }
        io::ErrorKind::PermissionDenied => {
            format!("grant this user write access to the directory {folder}, or choose another --listen")
        }
        _ => "choose another --listen".to_owned(),
    }
}

/// Binds a Unix socket. Replaces a socket file that no process serves any more.
fn bind_unix(path: &Path) -> io::Result<unix::UnixListener> {
    let listener = match unix::UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_abandoned(path) => {
            fs::remove_file(path)?;
            unix::UnixListener::bind(path)
        }
        other => other,
    }?;
    // Read and write for owner and group, subject to the directory's permissions.
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Returns whether a path is a socket without a server. The file type is checked because any other file also refuses
/// connections.
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
            // No host has an address from the documentation range (RFC 5737).
            ("192.0.2.1:10793".parse().unwrap(), "`ip address`"),
            (unix(folder.path().join("none/socket")), "make the directory"),
            (unix(file.join("socket")), "make the directory"),
            (unix(file.clone()), "not a socket: remove"),
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
    fn an_abandoned_socket_is_replaced_and_a_used_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let address = ListenAddress::Unix(path.clone());
        drop(unix::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let bound = Bound::new(&address).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        let error = format!("{:#}", Bound::new(&address).unwrap_err());
        assert!(error.contains("stop the process that uses it"), "{error}");
        drop(bound);
        assert!(!path.exists());
        fs::write(&path, "another file").unwrap();
        assert!(Bound::new(&address).is_err() && path.exists());
    }
}
