//! One listener for all machines of a protocol: a connection's local address tells which machine
//! was called, and a machine that is dead takes its connections with it, without a word.

use super::World;
use super::dialect::{self, Phase};
use super::seat::{Counters, Seat};
use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};

/// Listens at every loopback address. Other addresses are refused, twice over: the socket is bound
/// to the loopback device where the kernel lets us, and [`accept`] looks at the address called.
pub(super) fn bind(port: u16) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    #[cfg(target_os = "linux")]
    if socket.bind_device(Some(b"lo")).is_err() {
        tracing::debug!(
            "the listener can't be bound to the loopback device; addresses are checked"
        );
    }
    socket.bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
    socket.listen(1024)
}

/// The next connection to a machine of this world.
pub(super) async fn accept(world: &World, listener: &TcpListener) -> (TcpStream, Arc<Seat>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, mostly: the next one may do.
                tracing::warn!(%error, "a connection to a virtual machine can't be taken");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(local) = stream.local_addr() else { continue };
        let Some(seat) = world.seat_at(local) else { continue };
        drop(stream.set_nodelay(true));
        return (stream, seat.clone());
    }
}

/// Drops a connection as a dead machine does: a reset instead of an orderly end.
pub(super) fn refuse(seat: &Seat, stream: TcpStream) {
    Counters::count(&seat.counters.refused);
    drop(stream.set_zero_linger());
}

/// Longest that a connection hangs before its caller is let go, real time.
const HANG_MAX: Duration = Duration::from_secs(120);

/// Takes a connection and never says a word on it, as long as the BMC does not.
fn hold(world: Arc<World>, seat: Arc<Seat>, stream: TcpStream) {
    Counters::count(&seat.counters.refused);
    drop(tokio::spawn(async move {
        let until = Instant::now() + HANG_MAX;
        while Instant::now() < until {
            let now = world.now();
            if !seat.is_silent(now) && dialect::phase(&world, &seat, now) != Phase::Mute {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        drop(stream.set_zero_linger());
    }));
}

/// What is spoken on a connection.
enum Speech {
    Plain(TcpStream),
    /// The handshake is under way; the connection's own task drives it.
    Greets(Box<Accept<TcpStream>>),
    Tls(Box<TlsStream<TcpStream>>),
    Over,
}

impl Speech {
    /// Opens in the BMC's manner; `life`: of the BMC.
    fn new(stream: TcpStream, seat: &Seat, life: u64) -> io::Result<Speech> {
        let Some(tls) = seat.profile.tls else { return Ok(Speech::Plain(stream)) };
        let config = seat.certificate.config(tls.certificate, &seat.name, life)?;
        Ok(Speech::Greets(Box::new(TlsAcceptor::from(config).accept(stream))))
    }

    fn reset(&mut self) {
        let stream = match self {
            Speech::Plain(stream) => Some(&*stream),
            Speech::Greets(accept) => accept.get_ref(),
            Speech::Tls(stream) => Some(stream.get_ref().0),
            Speech::Over => None,
        };
        drop(stream.map(TcpStream::set_zero_linger));
    }

    /// Goes on with the handshake, where one is under way.
    fn greeted(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Speech::Greets(accept) = self {
            *self = match ready!(Pin::new(accept.as_mut()).poll(cx)) {
                Ok(stream) => Speech::Tls(Box::new(stream)),
                Err(error) => {
                    *self = Speech::Over;
                    return Poll::Ready(Err(error));
                }
            };
        }
        Poll::Ready(Ok(()))
    }
}

fn over() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl AsyncRead for Speech {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.greeted(cx))?;
        match &mut *self {
            Speech::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Speech::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
            Speech::Greets(_) | Speech::Over => Poll::Ready(Err(over())),
        }
    }
}

impl AsyncWrite for Speech {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.greeted(cx))?;
        match &mut *self {
            Speech::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Speech::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
            Speech::Greets(_) | Speech::Over => Poll::Ready(Err(over())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Speech::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Speech::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
            Speech::Greets(_) | Speech::Over => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Speech::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Speech::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
            Speech::Greets(_) | Speech::Over => Poll::Ready(Ok(())),
        }
    }
}

/// A connection to a BMC that ends when the BMC does, or when a rule hangs up.
pub(super) struct Line {
    stream: Speech,
    seat: Arc<Seat>,
    gone: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.seat.line_down();
    }
}

impl Line {
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if let Some(gone) = &mut self.gone
            && gone.as_mut().poll(cx).is_pending()
        {
            return Ok(());
        }
        self.gone = None;
        self.stream.reset();
        Err(io::ErrorKind::ConnectionReset.into())
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The BMCs' listener for axum.
pub(super) struct Bmcs {
    pub(super) world: Arc<World>,
    pub(super) listener: TcpListener,
}

/// Which BMC was called, and what ends the connection at once.
#[derive(Clone, Debug)]
pub(super) struct Called(pub(super) Option<Arc<Seat>>, pub(super) Arc<Notify>);

impl Listener for Bmcs {
    type Io = Line;
    type Addr = Called;

    async fn accept(&mut self) -> (Line, Called) {
        loop {
            let (stream, seat) = accept(&self.world, &self.listener).await;
            let now = self.world.now();
            let life = seat.bmc_life(now);
            let mute = match life {
                0 => seat.is_silent(now),
                _ => dialect::phase(&self.world, &seat, now) == Phase::Mute,
            };
            if mute {
                hold(self.world.clone(), seat, stream);
            } else if life == 0 || !seat.line_up() {
                refuse(&seat, stream);
            } else {
                let (gone, cut) = (seat.bmc_gone(life), Arc::new(Notify::new()));
                let hung_up = cut.clone();
                let gone: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
                    tokio::select! {
                        () = gone => {}
                        () = hung_up.notified() => {}
                    }
                });
                match Speech::new(stream, &seat, life) {
                    Ok(stream) => {
                        let line = Line { stream, seat: seat.clone(), gone: Some(gone) };
                        return (line, Called(Some(seat), cut));
                    }
                    Err(error) => {
                        seat.line_down();
                        tracing::error!(%error, "no certificate for a virtual BMC");
                    }
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Called> {
        Ok(Called(None, Arc::default()))
    }
}

impl Connected<IncomingStream<'_, Bmcs>> for Called {
    fn connect_info(stream: IncomingStream<'_, Bmcs>) -> Self {
        stream.remote_addr().clone()
    }
}
