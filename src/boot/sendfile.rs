//! Files from the page cache to the wire without a copy of ours, where a connection can.
//!
//! hyper takes bodies as bytes. A body of a file here is bytes that stand for the file's: slices of one
//! block of zeros that nobody writes or reads. The connection, which is ours too, knows that block by
//! its address, and when it is to write a slice of it, it has the kernel send as many bytes of the file
//! (sendfile). Which file and where is in its lane, in the order in which the bodies were made; one
//! connection has one answer after the other.
//!
//! `benches/boot_http.rs` compares it with nginx, which does the same.

use axum::body::{Body, Bytes};
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use axum::serve::{IncomingStream, Listener};
use rustix::io::ReadWriteFlags;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// Bytes of a file that one slice stands for.
const CHUNK: usize = 1 << 20;
/// Read at once where the page cache has to be filled first.
const PIECE: usize = 64 * 1024;
/// Slices that hyper holds back at most; with more of them something else writes them.
const WAITING: usize = 4;

/// Stands for bytes of files. Zeroed memory that is never touched costs none.
static VOID: LazyLock<Vec<u8>> = LazyLock::new(|| vec![0; CHUNK]);

fn is_void(slice: &[u8]) -> bool {
    VOID.as_ptr_range().contains(&slice.as_ptr())
}

/// What one connection is to send of files, in order. Clones are the same lane.
#[derive(Clone, Debug, Default)]
pub(super) struct Lane(Arc<Mutex<VecDeque<Part>>>);

#[derive(Debug)]
struct Part {
    file: Arc<File>,
    at: u64,
    left: usize,
}

impl Lane {
    fn parts(&self) -> MutexGuard<'_, VecDeque<Part>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `length` bytes of the file from `from` on, as the body of this connection's next answer.
    pub(super) fn body(self, file: File, from: u64, length: u64) -> Body {
        let start = (self, Arc::new(file), from, length);
        Body::from_stream(futures_util::stream::try_unfold(start, |state| async move {
            let (lane, file, at, left) = state;
            if left == 0 {
                return Ok::<_, io::Error>(None);
            }
            // Else a client that keeps up is served alone: the runtime asks the kernel which others
            // are ready only now and then while a task is always ready to go on.
            tokio::task::yield_now().await;
            let take = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
            warm(&file, at, take).await?;
            {
                let mut parts = lane.parts();
                if parts.len() >= WAITING {
                    return Err(io::Error::other("bytes that stand for a file were not taken"));
                }
                parts.push_back(Part { file: file.clone(), at, left: take });
            }
            let void = VOID.get(..take).unwrap_or_default();
            let (at, left) = (at + take as u64, left - take as u64);
            Ok(Some((Bytes::from_static(void), (lane, file, at, left))))
        }))
    }
}

/// Gets these bytes into the page cache. To send what is not there waits for the disk, and would keep
/// a thread of the runtime waiting.
async fn warm(file: &Arc<File>, at: u64, length: usize) -> io::Result<()> {
    let last = at + length.saturating_sub(1) as u64;
    if [at, last].into_iter().all(|at| is_cached(file, at)) {
        return Ok(());
    }
    let file = file.clone();
    let read = tokio::task::spawn_blocking(move || {
        let mut piece = vec![0; PIECE.min(length)];
        let mut done = 0;
        while done < length {
            match file.read_at(&mut piece, at + done as u64)? {
                0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                n => done += n,
            }
        }
        Ok(())
    });
    read.await.map_err(io::Error::other)?
}

/// Not every file system says; then it is no.
fn is_cached(file: &File, at: u64) -> bool {
    let mut byte = [0];
    let mut into = [IoSliceMut::new(&mut byte)];
    matches!(rustix::io::preadv2(file, &mut into, at, ReadWriteFlags::NOWAIT), Ok(1))
}

/// A listener whose connections send files so.
#[derive(Debug)]
pub struct FileListener(pub TcpListener);

impl Listener for FileListener {
    type Io = FileStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (FileStream, SocketAddr) {
        loop {
            match self.0.accept().await {
                Ok((tcp, peer)) => return (FileStream { tcp, lane: Lane::default() }, peer),
                Err(e) => {
                    // Out of file descriptors, or the client has gone again.
                    tracing::debug!(error = %e, "a connection could not be taken");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// Who is at the other end of a connection, and how files get there.
#[derive(Clone, Debug)]
pub struct Peer {
    address: SocketAddr,
    lane: Lane,
}

impl Connected<IncomingStream<'_, FileListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, FileListener>) -> Self {
        Peer { address: *stream.remote_addr(), lane: stream.io().lane.clone() }
    }
}

/// Gives requests what handlers ask for: `ConnectInfo<SocketAddr>`, and the connection's lane. To be
/// laid around the routes of a [`FileListener`].
pub async fn introduce(mut request: Request) -> Request {
    let peer = request.extensions_mut().remove::<ConnectInfo<Peer>>();
    if let Some(ConnectInfo(Peer { address, lane })) = peer {
        request.extensions_mut().insert(ConnectInfo(address));
        request.extensions_mut().insert(lane);
    }
    request
}

/// What a GET or HEAD of a file depends on.
#[derive(Clone, Debug)]
pub(super) struct FileRequest {
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    /// `None`: the connection is another's, and gets bytes.
    pub(super) lane: Option<Lane>,
}

impl<S: Sync> FromRequestParts<S> for FileRequest {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self {
            method: parts.method.clone(),
            headers: parts.headers.clone(),
            lane: parts.extensions.get().cloned(),
        })
    }
}

/// One connection of a [`FileListener`].
#[derive(Debug)]
pub struct FileStream {
    tcp: TcpStream,
    lane: Lane,
}

impl FileStream {
    /// Sends of the lane's first file, at most `wanted` bytes: what a slice stands for.
    fn poll_send(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.tcp.poll_write_ready(cx))?;
            let mut parts = self.lane.parts();
            let Some(part) = parts.front_mut() else {
                return Poll::Ready(Err(io::Error::other("bytes of a file that nobody named")));
            };
            let (tcp, mut at) = (&self.tcp, part.at);
            let most = wanted.min(part.left);
            let sent = tcp.try_io(Interest::WRITABLE, || {
                Ok(rustix::fs::sendfile(tcp, &part.file, Some(&mut at), most)?)
            });
            match sent {
                // The file ends early: a short body must not look whole.
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(n) => {
                    (part.at, part.left) = (at, part.left.saturating_sub(n));
                    if part.left == 0 {
                        parts.pop_front();
                    }
                    return Poll::Ready(Ok(n));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }
}

impl AsyncWrite for FileStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !bytes.is_empty() && is_void(bytes) {
            return self.poll_send(cx, bytes.len());
        }
        Pin::new(&mut self.tcp).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // What stands before the first bytes of a file goes first, in one write.
        let own = slices.iter().position(|s| !s.is_empty() && is_void(s)).unwrap_or(slices.len());
        let (before, rest) = slices.split_at_checked(own).unwrap_or((slices, &[]));
        match rest.first() {
            Some(void) if before.iter().all(|s| s.is_empty()) => self.poll_send(cx, void.len()),
            _ => Pin::new(&mut self.tcp).poll_write_vectored(cx, before),
        }
    }

    /// hyper copies bodies together where it isn't so.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

impl AsyncRead for FileStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, into)
    }
}
