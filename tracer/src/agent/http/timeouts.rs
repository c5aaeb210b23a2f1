//! A stream with timeouts for writes to slow clients.

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

/// A bidirectional byte stream.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A stream whose writes fail with `TimedOut` when they stall, or when a response takes too long in total. The total
/// limit catches a client that reads a byte now and then and so never stalls.
pub(crate) struct WriteTimeout {
    stream: Box<dyn Stream>,
    limits: WriteLimits,
    /// The deadline of the pending write.
    stall: Option<Pin<Box<Sleep>>>,
    /// The deadline for everything written since the last flush.
    total: Option<Pin<Box<Sleep>>>,
}

/// Time limits for writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriteLimits {
    /// Longest time without progress.
    pub(crate) stall: Duration,
    /// Longest time for a whole response.
    pub(crate) total: Duration,
}

impl WriteTimeout {
    pub(crate) fn new(stream: Box<dyn Stream>, limits: WriteLimits) -> Self {
        Self { stream, limits, stall: None, total: None }
    }

    /// Returns the result of a write, or `TimedOut` when a limit is exceeded.
    fn check_limits<T>(
        &mut self,
        context: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let WriteLimits { stall, total } = self.limits;
        let in_time = |sleep: &mut Option<Pin<Box<Sleep>>>, limit, context: &mut Context<'_>| {
            let sleep =
                sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + limit)));
            sleep.as_mut().poll(context).is_pending()
        };
        let mut within_limits = in_time(&mut self.total, total, context);
        if result.is_ready() {
            self.stall = None;
        } else {
            within_limits &= in_time(&mut self.stall, stall, context);
        }
        if within_limits { result } else { Poll::Ready(Err(io::ErrorKind::TimedOut.into())) }
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
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.check_limits(context, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.check_limits(context, result)
    }

    /// Vectored writes keep hyper from copying the page for each client.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(context);
        let result = self.check_limits(context, result);
        // The writer flushes after the last byte of a response.
        if let Poll::Ready(Ok(())) = result {
            self.total = None;
        }
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_shutdown(context);
        self.check_limits(context, result)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn a_client_that_reads_nothing_times_out() {
        let (near, far) = tokio::net::UnixStream::pair().unwrap();
        let limits = WriteLimits { stall: Duration::from_millis(50), total: Duration::from_secs(60) };
        let mut stream = WriteTimeout::new(Box::new(near), limits);
        let (bytes, mut written) = (vec![0; 1 << 16], 0);
        let begin = std::time::Instant::now();
        let error = loop {
            match poll_fn(|context| Pin::new(&mut stream).poll_write(context, &bytes)).await {
                Ok(count) => written += count,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(written > 0 && begin.elapsed() >= Duration::from_millis(50));
        drop(far);
    }

    #[tokio::test]
    async fn a_client_that_reads_slowly_times_out_in_total() {
        use std::io::Read as _;
        let (near, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let near = tokio::net::UnixStream::from_std(near).unwrap();
        let limits = WriteLimits { stall: Duration::from_secs(60), total: Duration::from_millis(200) };
        let mut stream = WriteTimeout::new(Box::new(near), limits);
        // Each flushed response restarts the total limit.
        for _ in 0..3 {
            poll_fn(|context| Pin::new(&mut stream).poll_write(context, b"answer")).await.unwrap();
            poll_fn(|context| Pin::new(&mut stream).poll_flush(context)).await.unwrap();
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
            let written = poll_fn(|context| Pin::new(&mut stream).poll_write(context, &bytes)).await;
            if let Err(error) = written {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!((Duration::from_millis(200)..Duration::from_secs(30)).contains(&begin.elapsed()));
        drop(stream);
        reader.join().unwrap();
    }
}
