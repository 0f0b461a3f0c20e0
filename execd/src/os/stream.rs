//! The socket of an accepted connection: TCP, Unix, or TLS over TCP. `link` handles its frames.

use protocol::proof::Channel;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use tls::session::Session;

/// The socket of an accepted connection.
#[derive(Debug)]
pub(super) enum Stream {
    /// TCP without TLS.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// TLS over TCP.
    Tls(TcpStream, Box<Session>),
}

impl Stream {
    pub(super) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(into),
            Self::Unix(stream) => stream.read(into),
            Self::Tls(stream, session) => session.read(stream, &mut [IoSliceMut::new(into)]),
        }
    }

    /// Reads bytes that will be thrown away, without decrypting them.
    pub(super) fn discard(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tls(stream, _) => stream.read(into),
            Self::Tcp(_) | Self::Unix(_) => self.read(into),
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
            Self::Tls(stream, session) => session.write(stream, &[IoSlice::new(bytes)]),
        }
    }

    /// Writes what was given to an earlier write and has not left.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => Ok(()),
            Self::Tls(stream, session) => session.flush(stream),
        }
    }

    /// Closes the writing direction.
    pub(super) fn shut(&mut self) {
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
            Self::Tls(stream, session) => {
                session.close();
                session.flush(stream).and_then(|()| stream.shutdown(Shutdown::Write))
            }
        };
    }

    /// Whether frames must wait for the end of the TLS handshake.
    pub(super) fn is_handshaking(&self) -> bool {
        match self {
            Self::Tcp(_) | Self::Unix(_) => false,
            Self::Tls(_, session) => session.is_handshaking() && session.fault().is_none(),
        }
    }

    /// Whether bytes of an earlier write have not left.
    pub(super) fn has_unsent(&self) -> bool {
        match self {
            Self::Tcp(_) | Self::Unix(_) => false,
            Self::Tls(_, session) => session.has_unsent(),
        }
    }

    /// Whether a read would return something without the socket being readable.
    pub(super) fn has_more(&self) -> bool {
        match self {
            Self::Tcp(_) | Self::Unix(_) => false,
            Self::Tls(_, session) => session.has_more(),
        }
    }

    /// The channel binding for proofs on this connection; `None` = it has no TLS.
    pub(super) fn channel(&self) -> Result<Option<Channel>, String> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => Ok(None),
            Self::Tls(_, session) => session.channel().map(Some),
        }
    }

    /// Why TLS failed; `None` = it did not.
    pub(super) fn fault_text(&self) -> Option<String> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => None,
            Self::Tls(_, session) => session.fault_text(),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) | Self::Tls(stream, _) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}
