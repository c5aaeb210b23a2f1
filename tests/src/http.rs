//! A minimal HTTP client.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
};

use crate::speed::limit;

/// A server's response.
#[derive(Debug)]
pub struct Response {
    /// The status code, such as 200.
    pub status: u16,
    /// The status line and the header lines.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// Returns the body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn read(
        mut stream: impl io::Read + io::Write,
        method: &str,
        path: &str,
        header: &str,
    ) -> io::Result<Self> {
        let host = if header.starts_with("Host:") { "" } else { "Host: localhost\r\n" };
        write!(stream, "{method} {path} HTTP/1.1\r\n{host}Connection: close\r\n{header}\r\n")?;
        let mut response = Vec::new();
        stream.read_to_end(&mut response)?;
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "not an HTTP response");
        let end = response.windows(4).position(|window| window == b"\r\n\r\n").ok_or_else(wrong)?;
        let body = response.split_off(end + 4);
        let head = String::from_utf8_lossy(&response).into_owned();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(wrong)?;
        Ok(Self { status, head, body })
    }
}

/// Requests a path over TCP. `header` is a complete header line including CRLF, or empty.
///
/// # Errors
///
/// Returns an error if no response arrives within the limit.
pub fn get(address: SocketAddr, path: &str, header: &str) -> io::Result<Response> {
    request(address, "GET", path, header)
}

/// Posts nothing to a path over TCP. `header` is as for [`get`].
///
/// # Errors
///
/// Returns an error if no response arrives within the limit.
pub fn post(address: SocketAddr, path: &str, header: &str) -> io::Result<Response> {
    request(address, "POST", path, header)
}

fn request(address: SocketAddr, method: &str, path: &str, header: &str) -> io::Result<Response> {
    let stream = TcpStream::connect_timeout(&address, limit())?;
    stream.set_read_timeout(Some(limit()))?;
    Response::read(stream, method, path, header)
}

/// Requests a path over a Unix socket.
///
/// # Errors
///
/// Returns an error if no response arrives within the limit.
pub fn get_unix(socket: &Path, path: &str) -> io::Result<Response> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(limit()))?;
    Response::read(stream, "GET", path, "")
}

/// Percent-encodes text for a URL (RFC 3986, section 2.1).
pub fn percent_encode(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}
