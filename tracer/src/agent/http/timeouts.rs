//! A stream that gives up on a client who does not take what is written to him.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

/// Any stream that can be read and written.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A stream whose writes end with an error when nothing has been taken for some time, or when all of them together
/// have taken too long: a client who takes a byte now and then does not stall.
pub(crate) struct WriteTimeout {
    stream: Box<dyn Stream>,
    limits: Limits,
    stalled: Option<Pin<Box<Sleep>>>,
    /// Until when all that has been written since the last flush has to be taken.
    end: Option<Pin<Box<Sleep>>>,
}

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// For any part of what is sent to him.
    pub(crate) stall: Duration,
    /// For all of it.
    pub(crate) whole: Duration,
}

impl WriteTimeout {
    pub(crate) fn new(stream: Box<dyn Stream>, limits: Limits) -> Self {
        Self { stream, limits, stalled: None, end: None }
    }

    /// What a write came to, unless it has stalled for too long, or is one of a row that has taken too long.
    fn judge<T>(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let Limits { stall, whole } = self.limits;
        let in_time = |sleep: &mut Option<Pin<Box<Sleep>>>, limit, context: &mut Context<'_>| {
            let sleep =
                sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + limit)));
            sleep.as_mut().poll(context).is_pending()
        };
        let mut patient = in_time(&mut self.end, whole, context);
        if outcome.is_ready() {
            self.stalled = None;
        } else {
            patient &= in_time(&mut self.stalled, stall, context);
        }
        if patient { outcome } else { Poll::Ready(Err(io::ErrorKind::TimedOut.into())) }
    }
}

impl AsyncRead for WriteTimeout {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for WriteTimeout {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.judge(context, outcome)
    }

    /// Otherwise hyper makes a copy of the page for each client, of which nobody would know.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(context);
        let judged = self.judge(context, outcome);
        // The writer flushes when it has nothing left.
        if let Poll::Ready(Ok(())) = judged {
            self.end = None;
        }
        judged
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(context);
        self.judge(context, outcome)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn a_reader_that_takes_nothing_is_given_up() {
        let (near, far) = tokio::net::UnixStream::pair().unwrap();
        let limits = Limits { stall: Duration::from_millis(50), whole: Duration::from_secs(60) };
        let mut patient = WriteTimeout::new(Box::new(near), limits);
        let (bytes, mut written) = (vec![0; 1 << 16], 0);
        let begin = std::time::Instant::now();
        let error = loop {
            match poll_fn(|context| Pin::new(&mut patient).poll_write(context, &bytes)).await {
                Ok(count) => written += count,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(written > 0 && begin.elapsed() >= Duration::from_millis(50));
        drop(far);
    }

    #[tokio::test]
    async fn a_reader_that_takes_a_little_now_and_then_is_given_up_in_the_end() {
        use std::io::Read as _;
        let (near, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let near = tokio::net::UnixStream::from_std(near).unwrap();
        let limits = Limits { stall: Duration::from_secs(60), whole: Duration::from_millis(200) };
        let mut patient = WriteTimeout::new(Box::new(near), limits);
        // What is taken at once begins anew each time.
        for _ in 0..3 {
            poll_fn(|context| Pin::new(&mut patient).poll_write(context, b"answer")).await.unwrap();
            poll_fn(|context| Pin::new(&mut patient).poll_flush(context)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let reader = std::thread::spawn(move || {
            let mut taken = [0; 1024];
            while far.read_exact(&mut taken).is_ok() {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let begin = std::time::Instant::now();
        let bytes = vec![0; 1 << 16];
        let error = loop {
            let written = poll_fn(|context| Pin::new(&mut patient).poll_write(context, &bytes)).await;
            if let Err(error) = written {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!((Duration::from_millis(200)..Duration::from_secs(30)).contains(&begin.elapsed()));
        drop(patient);
        reader.join().unwrap();
    }
}
