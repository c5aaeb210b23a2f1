//! Accepts HTTP clients and limits their number and time.
//!
//! Clients cannot delay tracing, which has its own thread. The limits protect memory, file descriptors, and the access
//! of Prometheus.

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
    timeouts::{Stream, WriteLimits, WriteTimeout},
    web_config::Web,
};

/// Most connections; a new one replaces the oldest. The usual limit of a process is 1024 descriptors.
const MAX_CLIENTS: usize = 512;
/// Longest time for a client to send a request, including the idle time before it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(90);
/// Longest time for a TLS handshake.
const TLS_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest stall and longest total time for sending a response.
const RESPONSE_LIMITS: WriteLimits =
    WriteLimits { stall: Duration::from_secs(10), total: Duration::from_secs(30) };
/// Delay after a failed accept.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The connected clients.
#[derive(Clone)]
pub(crate) struct Clients {
    router: Router,
    web: watch::Receiver<Arc<Web>>,
    /// Tasks of the clients, oldest first.
    connected: Arc<Mutex<VecDeque<AbortHandle>>>,
    shutdown: Arc<watch::Sender<bool>>,
}

impl Clients {
    /// Serves `router` with the TLS and the users that `web` currently holds.
    pub(crate) fn new(router: Router, web: watch::Receiver<Arc<Web>>) -> Self {
        let router = pages::guarded(router, web.clone());
        Self { router, web, connected: Arc::default(), shutdown: Arc::new(watch::Sender::new(false)) }
    }

    /// Accepts clients from a listening socket until shutdown.
    pub(crate) fn accept_from(&self, listener: Listener) {
        let clients = self.clone();
        let mut shutdown = self.shutdown.subscribe();
        tokio::spawn(async move {
            let accepting = async {
                loop {
                    match listener.accept().await {
                        Ok(stream) => clients.admit(stream),
                        Err(error) if is_client_error(&error) => {}
                        Err(error) => {
                            tracing::warn!("a client could not be accepted: {error}");
                            sleep(ACCEPT_RETRY).await;
                        }
                    }
                }
            };
            tokio::select! {
                () = accepting => {}
                () = shutdown_requested(&mut shutdown) => {}
            }
        });
    }

    fn admit(&self, stream: Box<dyn Stream>) {
        let (router, mut web, shutdown) = (self.router.clone(), self.web.clone(), self.shutdown.subscribe());
        let task = tokio::spawn(async move {
            let tls = web.borrow_and_update().tls.clone();
            let stream = match tls {
                None => stream,
                Some(tls) => {
                    let acceptor = TlsAcceptor::from(tls);
                    match timeout(TLS_TIMEOUT, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => Box::new(stream),
                        Ok(Err(error)) => return tracing::debug!("a TLS handshake failed: {error}"),
                        Err(_) => return tracing::debug!("a TLS handshake timed out"),
                    }
                }
            };
            serve_client(stream, router, web, shutdown).await;
        });
        let mut connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        if connected.len() >= MAX_CLIENTS {
            connected.retain(|client| !client.is_finished());
        }
        if connected.len() >= MAX_CLIENTS
            && let Some(oldest) = connected.pop_front()
        {
            oldest.abort();
        }
        connected.push_back(task.abort_handle());
    }

    /// Stops accepting clients, and waits up to `grace` for running requests.
    pub(crate) async fn shut_down(&self, grace: Duration) {
        self.shutdown.send_replace(true);
        let drained = async {
            while self.any_left() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = timeout(grace, drained).await;
    }

    fn any_left(&self) -> bool {
        let connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        connected.iter().any(|client| !client.is_finished())
    }
}

/// Waits for the shutdown.
async fn shutdown_requested(shutdown: &mut watch::Receiver<bool>) {
    // The sender lives as long as the last listener.
    let _ = shutdown.wait_for(|requested| *requested).await;
}

/// Waits for a reload of the web configuration.
async fn reloaded(web: &mut watch::Receiver<Arc<Web>>) {
    if web.changed().await.is_err() {
        // The sender is gone, so no reload can follow.
        std::future::pending::<()>().await;
    }
}

/// Serves a client until it disconnects, the server shuts down, or the web configuration is reloaded.
///
/// A reload closes keep-alive connections after their current request, so that clients reconnect under the new
/// configuration.
async fn serve_client(
    stream: Box<dyn Stream>,
    router: Router,
    mut web: watch::Receiver<Arc<Web>>,
    mut shutdown: watch::Receiver<bool>,
) {
    let stream = TokioIo::new(WriteTimeout::new(stream, RESPONSE_LIMITS));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .max_buf_size(16 << 10)
        .serve_connection(stream, TowerToHyperService::new(router));
    tokio::pin!(connection);
    let result = tokio::select! {
        result = &mut connection => result,
        () = shutdown_requested(&mut shutdown) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = reloaded(&mut web) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!("a client connection failed: {error}");
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

/// Returns whether an accept failed because the client disconnected first.
fn is_client_error(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
