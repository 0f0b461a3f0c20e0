//! A connection of a checking client: frames out and in, with limits of time, and an exact word on
//! what left and what did not. Not the client library: the judge wants to see every frame.

use bytes::BytesMut;
use protocol::frame::Frame;
use protocol::{decode, encode};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// How long a write may stand still.
const WRITE_MAX: Duration = Duration::from_secs(2);
/// How long connecting may take.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// Where a client goes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Door {
    /// Through the proxy.
    Proxy(SocketAddr),
    /// Straight to the broker.
    Tcp(SocketAddr),
    /// By its Unix socket.
    Unix(PathBuf),
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The kernel has all of it.
    Whole,
    /// Some of it left, and no more will.
    Part,
}

/// What waiting brought.
#[derive(Debug)]
pub enum Came {
    /// A frame.
    Frame(Frame),
    /// Nothing in time.
    Nothing,
    /// The end of the connection.
    Lost,
}

/// A connection.
pub struct Line {
    stream: Stream,
    buffer: BytesMut,
    /// Its own port if it goes through the proxy, else 0.
    pub port: u16,
}

impl Line {
    /// Connects.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn open(door: &Door) -> io::Result<Self> {
        let tcp = |address: &SocketAddr| {
            let stream = TcpStream::connect_timeout(address, CONNECT_MAX)?;
            stream.set_nodelay(true)?;
            stream.set_write_timeout(Some(WRITE_MAX))?;
            io::Result::Ok(stream)
        };
        let mut port = 0;
        let stream = match door {
            Door::Proxy(address) => {
                let stream = tcp(address)?;
                port = stream.local_addr()?.port();
                Stream::Tcp(stream)
            }
            Door::Tcp(address) => Stream::Tcp(tcp(address)?),
            Door::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_write_timeout(Some(WRITE_MAX))?;
                Stream::Unix(stream)
            }
        };
        Ok(Self { stream, buffer: BytesMut::new(), port })
    }

    /// Sends a frame.
    pub fn send(&mut self, frame: Frame) -> Sent {
        let bytes = encode::to_bytes(frame);
        self.write(&bytes)
    }

    /// Sends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Sent {
        let done = match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
        };
        if done.is_ok() { Sent::Whole } else { Sent::Part }
    }

    /// The next frame.
    ///
    /// # Panics
    /// If what comes are no frames: the broker never sends such.
    pub fn next(&mut self, wait: Duration) -> Came {
        loop {
            match decode::next(&mut self.buffer, 1 << 30) {
                Ok(Some(frame)) => return Came::Frame(frame),
                Ok(None) => {}
                Err(error) => panic!("the broker sent no frame: {error}"),
            }
            match self.read(wait) {
                Ok(0) => return Came::Lost,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Came::Nothing,
                Err(_) => return Came::Lost,
            }
        }
    }

    fn read(&mut self, wait: Duration) -> io::Result<usize> {
        let wait = Some(wait.max(Duration::from_millis(1)));
        let mut bytes = [0; 65_536];
        let count = match &mut self.stream {
            Stream::Tcp(stream) => {
                stream.set_read_timeout(wait)?;
                stream.read(&mut bytes)?
            }
            Stream::Unix(stream) => {
                stream.set_read_timeout(wait)?;
                stream.read(&mut bytes)?
            }
        };
        self.buffer.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    /// No more will be sent, in order.
    pub fn shut(&self) {
        // It may be gone already.
        let _ = match &self.stream {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
    }
}
