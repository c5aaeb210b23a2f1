//! HTTP as a client needs it to look at a page.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
};

use crate::speed::limit;

/// What a server answered.
#[derive(Debug)]
pub struct Answer {
    /// The status, as 200.
    pub status: u16,
    /// The lines of the head.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn read(mut stream: impl io::Read + io::Write, path: &str, header: &str) -> io::Result<Self> {
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{header}\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "no HTTP answer");
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or_else(wrong)?;
        let body = answer.split_off(end + 4);
        let head = String::from_utf8_lossy(&answer).into_owned();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(wrong)?;
        Ok(Self { status, head, body })
    }
}

/// Asks for a path; `header` is a whole line with its end, or empty.
///
/// # Errors
///
/// When there is no answer within the limit.
pub fn get(address: SocketAddr, path: &str, header: &str) -> io::Result<Answer> {
    let stream = TcpStream::connect_timeout(&address, limit())?;
    stream.set_read_timeout(Some(limit()))?;
    Answer::read(stream, path, header)
}

/// Asks for a path over a Unix socket.
///
/// # Errors
///
/// When there is no answer within the limit.
pub fn get_unix(socket: &Path, path: &str) -> io::Result<Answer> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(limit()))?;
    Answer::read(stream, path, "")
}

/// Writes a text as a part of a URL (RFC 3986, section 2.1).
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
