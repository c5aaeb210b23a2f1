//! Requests to freeze: by a signal or over HTTP, from another thread.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use tokio::sync::oneshot;

use crate::flight_recorder::freeze::{FreezeCause, FreezeError, Frozen};

/// Most requests that wait for the tracing thread.
const MAX_WAITING: usize = 8;

/// What a request gets back.
pub(super) type Reply = oneshot::Sender<Result<Frozen, FreezeError>>;

/// A request.
pub(super) struct FreezeRequest {
    pub(super) cause: FreezeCause,
    /// None if nobody waits for the file.
    pub(super) reply: Option<Reply>,
}

/// Asks the flight recorder for a file.
#[derive(Clone)]
pub(crate) struct FreezeHandle(SyncSender<FreezeRequest>);

impl std::fmt::Debug for FreezeHandle {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("FreezeHandle").finish_non_exhaustive()
    }
}

/// The recorder's side.
pub(crate) struct FreezeRequests(Receiver<FreezeRequest>);

/// Creates both sides.
pub(crate) fn freeze_channel() -> (FreezeHandle, FreezeRequests) {
    let (sender, receiver) = sync_channel(MAX_WAITING);
    (FreezeHandle(sender), FreezeRequests(receiver))
}

impl FreezeHandle {
    /// Freezes for SIGUSR1. The recorder reports the file or the error.
    pub(crate) fn signal(&self) {
        // With a full channel, files are being written anyway.
        let _ = self.0.try_send(FreezeRequest { cause: FreezeCause::Signal, reply: None });
    }

    /// Freezes for a request over HTTP, and waits for the file.
    ///
    /// # Errors
    ///
    /// [`FreezeError`].
    pub(crate) async fn http(&self) -> Result<Frozen, FreezeError> {
        let (reply, answer) = oneshot::channel();
        let request = FreezeRequest { cause: FreezeCause::Http, reply: Some(reply) };
        self.0.try_send(request).map_err(|_| FreezeError::Busy)?;
        answer.await.unwrap_or(Err(FreezeError::Dropped))
    }
}

impl FreezeRequests {
    /// Returns the next request, without waiting.
    pub(super) fn next(&self) -> Option<FreezeRequest> {
        self.0.try_recv().ok()
    }
}
