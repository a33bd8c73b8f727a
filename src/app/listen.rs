//! Listening sockets: plain HTTP, or TLS from PEM files, with a graceful end.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "sockets, time-outs and certificate files are this module's work"
)]

use crate::boot::{FileListener, Peer, introduce};
use crate::config::daemon::Tls;
use axum::Router;
use axum::serve::Listener;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// Longest TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Binds, or says which listener could not.
///
/// # Errors
/// A sentence for a person.
pub async fn bind(what: &str, address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|e| {
        format!(
            "can't listen on {address} for `[listen.{what}]`: {e}\n  hint: is another daemon running? `bind` in that section says where"
        )
    })
}

/// Serves `router` until `ending` turns true and the open requests have ended.
pub async fn serve(
    tcp: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    mut ending: watch::Receiver<bool>,
) {
    let ended = async move {
        ending.wait_for(|e| *e).await.ok();
    };
    let result = match tls {
        Some(config) => match TlsListener::new(tcp, config) {
            Ok(listener) => {
                let service = router.into_make_service();
                axum::serve(listener, service).with_graceful_shutdown(ended).await
            }
            Err(e) => Err(e),
        },
        None => {
            // Boot windows are bound to their host's address; images are as large as disks.
            let router = router.layer(axum::middleware::map_request(introduce));
            let service = router.into_make_service_with_connect_info::<Peer>();
            axum::serve(FileListener(tcp), service).with_graceful_shutdown(ended).await
        }
    };
    if let Err(e) = result {
        tracing::error!(error = %e, "a listener ended");
    }
}

/// The TLS configuration of the API listener.
///
/// # Errors
/// A sentence for a person.
pub fn tls_config(tls: &Tls) -> Result<Arc<ServerConfig>, String> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&tls.cert)
        .and_then(Iterator::collect)
        .map_err(|e| format!("can't read the certificate `{}`: {e}", tls.cert.display()))?;
    let key = PrivateKeyDer::from_pem_file(&tls.key)
        .map_err(|e| format!("can't read the key `{}`: {e}", tls.key.display()))?;
    ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map(Arc::new)
        .map_err(|e| format!("certificate and key don't go together: {e}"))
}

/// TLS under axum. Handshakes run in tasks of their own: a client that never finishes one keeps
/// nobody waiting.
pub struct TlsListener {
    ready: tokio::sync::mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
}

impl std::fmt::Debug for TlsListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TlsListener({})", self.address)
    }
}

impl TlsListener {
    fn new(tcp: TcpListener, config: Arc<ServerConfig>) -> std::io::Result<Self> {
        let address = tcp.local_addr()?;
        let (tx, ready) = tokio::sync::mpsc::channel(64);
        tokio::spawn(accept_loop(tcp, TlsAcceptor::from(config), tx));
        Ok(Self { ready, address })
    }
}

async fn accept_loop(
    tcp: TcpListener,
    acceptor: TlsAcceptor,
    tx: tokio::sync::mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    loop {
        let accepted = tokio::select! {
            () = tx.closed() => return,
            accepted = tcp.accept() => accepted,
        };
        let Ok((stream, peer)) = accepted else {
            // Out of file descriptors: let some go.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (acceptor, tx) = (acceptor.clone(), tx.clone());
        tokio::spawn(async move {
            stream.set_nodelay(true).ok();
            if let Ok(Ok(tls)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                tx.send((tls, peer)).await.ok();
            }
        });
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(pair) => pair,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(self.address)
    }
}
