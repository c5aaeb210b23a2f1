//! Who is connected, and for how long.
//!
//! Nothing that clients do holds the tracing up, because it has a thread of its own; the limits here keep
//! them from taking memory, descriptors, or the place of the monitor.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
    task::AbortHandle,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use crate::agent::http::{
    listen::Listener,
    pages,
    timeouts::{Limits, Stream, WriteTimeout},
    web_config::Web,
};

/// Most connections; a new one takes the place of the oldest. A process may usually have 1024 descriptors.
const MOST: usize = 512;
/// How long a client may take for a request, or be silent between two.
const REQUEST: Duration = Duration::from_secs(90);
/// How long a client may take for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a client may take nothing of what is sent to him, and how long for all of an answer.
const ANSWER: Limits = Limits { stall: Duration::from_secs(10), whole: Duration::from_secs(30) };
/// Before another attempt, when no client can be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// Everybody who is connected.
#[derive(Clone)]
pub(crate) struct Clients {
    router: Router,
    web: watch::Receiver<Arc<Web>>,
    /// The oldest first.
    connected: Arc<Mutex<VecDeque<AbortHandle>>>,
    end: Arc<watch::Sender<bool>>,
}

impl Clients {
    /// Clients of these pages, who are let in by what `web` holds at the time.
    pub(crate) fn new(router: Router, web: watch::Receiver<Arc<Web>>) -> Self {
        let router = pages::guarded(router, web.clone());
        Self { router, web, connected: Arc::default(), end: Arc::new(watch::Sender::new(false)) }
    }

    /// Accepts clients from a socket until the end.
    pub(crate) fn accept_from(&self, listener: Listener) {
        let clients = self.clone();
        let mut ends = self.end.subscribe();
        tokio::spawn(async move {
            let accepting = async {
                loop {
                    match listener.accept().await {
                        Ok(stream) => clients.admit(stream),
                        Err(error) if is_the_clients(&error) => {}
                        Err(error) => {
                            tracing::warn!("a client could not be accepted: {error}");
                            sleep(PAUSE).await;
                        }
                    }
                }
            };
            tokio::select! {
                () = accepting => {}
                () = ended(&mut ends) => {}
            }
        });
    }

    fn admit(&self, stream: Box<dyn Stream>) {
        let (router, mut web, ends) = (self.router.clone(), self.web.clone(), self.end.subscribe());
        let task = tokio::spawn(async move {
            let tls = web.borrow_and_update().tls.clone();
            let stream = match tls {
                None => stream,
                Some(tls) => {
                    let acceptor = TlsAcceptor::from(tls);
                    match timeout(HANDSHAKE, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => Box::new(stream),
                        Ok(Err(error)) => return tracing::debug!("a TLS handshake failed: {error}"),
                        Err(_) => return tracing::debug!("a TLS handshake took too long"),
                    }
                }
            };
            converse(stream, router, web, ends).await;
        });
        let mut connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        if connected.len() >= MOST {
            connected.retain(|client| !client.is_finished());
        }
        if connected.len() >= MOST
            && let Some(oldest) = connected.pop_front()
        {
            oldest.abort();
        }
        connected.push_back(task.abort_handle());
    }

    /// Accepts nobody any more, and lets requests come to their end for so long.
    pub(crate) async fn end(&self, grace: Duration) {
        self.end.send_replace(true);
        let others = async {
            while self.any_left() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = timeout(grace, others).await;
    }

    fn any_left(&self) -> bool {
        let connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        connected.iter().any(|client| !client.is_finished())
    }
}

/// Waits for the end of all.
async fn ended(ends: &mut watch::Receiver<bool>) {
    // The sender goes only with the last listener.
    let _ = ends.wait_for(|ended| *ended).await;
}

/// Waits until the web configuration has been read again.
async fn renewed(web: &mut watch::Receiver<Arc<Web>>) {
    if web.changed().await.is_err() {
        // Nobody can read it again any more.
        std::future::pending::<()>().await;
    }
}

/// Answers a client until he goes, the server ends, or the web configuration is another one: then he has to come
/// again, to a certificate that may be new.
async fn converse(
    stream: Box<dyn Stream>,
    router: Router,
    mut web: watch::Receiver<Arc<Web>>,
    mut ends: watch::Receiver<bool>,
) {
    let stream = TokioIo::new(WriteTimeout::new(stream, ANSWER));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST)
        .max_buf_size(16 << 10)
        .serve_connection(stream, TowerToHyperService::new(router));
    tokio::pin!(connection);
    let outcome = tokio::select! {
        outcome = &mut connection => outcome,
        () = ended(&mut ends) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = renewed(&mut web) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!("a client was given up: {error}");
    }
}

impl Listener {
    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Tcp(listener, _) => Box::new(TcpListener::accept(listener).await?.0),
            Self::Unix(listener, _) => Box::new(UnixListener::accept(listener).await?.0),
        })
    }
}

/// Errors of one client, who was gone before he was accepted.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
