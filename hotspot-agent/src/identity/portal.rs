//! The portal's interface: HTTP on Unix and TCP sockets, by which captive portals report who logged in, and DHCP servers their leases.
//!
//! Guarantees that a report is answered with 200 only after it is on disk; what could not be recorded is answered with 503, and
//! the portal sends it again. Bounds connections, sizes and times. Nothing personal is logged. The interface is described in
//! `docs/portal-api.yaml`.

mod authorize;
mod fields;
mod lease;
mod nonces;
mod report;
mod room;
mod route;

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

pub use authorize::{PortalSecrets, PortalSecretsError};
pub use report::{BadReport, Operation, Report, Reports, parse_batch, parse_one};
use room::{CONNECTIONS_MAX, Room, Shown};
use route::Portal;

use crate::recorder::Recorder;

/// A connection that has not sent the head of a request within this time is closed.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
const HEAD_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 64;

/// Where the interface listens: `/run/hotspot/portal.sock`, or `10.20.0.1:8017`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortalAddress {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

impl FromStr for PortalAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with('/') {
            return Ok(Self::Unix(text.into()));
        }
        text.parse()
            .map(Self::Tcp)
            .map_err(|_| "write the path of a socket (/run/hotspot/portal.sock) or ADDRESS:PORT".into())
    }
}

impl std::fmt::Display for PortalAddress {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(formatter),
            Self::Tcp(address) => address.fmt(formatter),
        }
    }
}

/// Why the interface cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum PortalError {
    #[error("cannot listen for portals on {address}")]
    Listen { address: String, source: io::Error },
    #[error("another program listens on {}", path.display())]
    InUse { path: PathBuf },
    #[error("{} is there, and is no socket", path.display())]
    NotASocket { path: PathBuf },
    #[error(
        "--portal-listen {address} can be reached over the network: give --portal-secret-file, or listen on a socket's path"
    )]
    NoSecrets { address: SocketAddr },
}

enum Listener {
    Unix(UnixListener, PathBuf),
    Tcp(TcpListener),
}

/// A bound listener.
pub struct PortalListener {
    listener: Listener,
    portal: Arc<Portal>,
}

impl PortalListener {
    /// Binds; must be called inside the runtime. A socket that a killed agent left is taken over.
    pub fn bind(
        address: &PortalAddress,
        secrets: Option<&PortalSecrets>,
        recorder: Recorder,
    ) -> Result<Self, PortalError> {
        let failed = |source| PortalError::Listen { address: address.to_string(), source };
        let (listener, secrets) = match address {
            PortalAddress::Unix(path) => (Listener::Unix(bind_unix(path)?, path.clone()), None),
            PortalAddress::Tcp(address) => {
                let secrets = secrets.ok_or(PortalError::NoSecrets { address: *address })?;
                let listener = std::net::TcpListener::bind(address).map_err(failed)?;
                listener.set_nonblocking(true).map_err(failed)?;
                (Listener::Tcp(TcpListener::from_std(listener).map_err(failed)?), Some(secrets.clone()))
            }
        };
        info!(%address, "listening for portals");
        Ok(Self { listener, portal: Arc::new(Portal::new(secrets, recorder)) })
    }

    /// Serves until `stopped` changes; requests that are under way are answered.
    pub async fn run(self, mut stopped: watch::Receiver<bool>) -> io::Result<()> {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let room = Room::default();
        let mut connections = JoinSet::new();
        let outcome = loop {
            let accepted = tokio::select! {
                accepted = self.accept() => accepted,
                _ = stopped.changed() => break Ok(()),
            };
            match accepted {
                Ok((stream, peer)) => {
                    if permits.available_permits() == 0 {
                        room.make_room();
                    }
                    // Never closed, so there is always a permit in the end.
                    let permit = tokio::select! {
                        permit = Arc::clone(&permits).acquire_owned() => permit,
                        _ = stopped.changed() => break Ok(()),
                    };
                    let (portal, stopped) = (Arc::clone(&self.portal), stopped.clone());
                    // Who may open a Unix socket has shown that by opening it.
                    let shown = Shown::new(peer.is_none());
                    let of_connection = shown.clone();
                    let serving = connections.spawn(async move {
                        serve(stream, portal, of_connection, stopped).await;
                        drop(permit);
                    });
                    room.hold(peer, shown, serving);
                }
                // No descriptor left, or a peer that was gone before it was accepted: neither is the end of the listener.
                Err(error) => {
                    warn!(%error, "a portal's connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            while connections.try_join_next().is_some() {}
        };
        while connections.join_next().await.is_some() {}
        if let Listener::Unix(_, path) = &self.listener {
            let _ = fs::remove_file(path);
        }
        outcome
    }

    /// A connection, and whose it is where it came over the network.
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, Option<IpAddr>)> {
        match &self.listener {
            Listener::Unix(listener, _) => Ok((Box::new(listener.accept().await?.0), None)),
            Listener::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Box::new(stream), Some(peer.ip())))
            }
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

async fn serve(stream: Box<dyn Stream>, portal: Arc<Portal>, shown: Shown, mut stopped: watch::Receiver<bool>) {
    let service = service_fn(move |request| {
        let (portal, shown) = (Arc::clone(&portal), shown.clone());
        async move { Ok::<_, std::convert::Infallible>(portal.answer(request, &shown).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        debug!(%error, "a portal's connection ended");
    }
}

/// Readable and writable by its owner only: whoever can open it may report.
fn bind_unix(path: &Path) -> Result<UnixListener, PortalError> {
    let failed = |source| PortalError::Listen { address: path.display().to_string(), source };
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(failed)?;
    }
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(PortalError::NotASocket { path: path.to_path_buf() });
        }
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            return Err(PortalError::InUse { path: path.to_path_buf() });
        }
        Ok(_) => fs::remove_file(path).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(failed(source)),
    }
    // Bound under a name of its own until nobody else can open it.
    let unready = path.with_extension("new");
    let _ = fs::remove_file(&unready);
    let listener = UnixListener::bind(&unready).map_err(failed)?;
    fs::set_permissions(&unready, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    fs::rename(&unready, path).map_err(failed)?;
    Ok(listener)
}
