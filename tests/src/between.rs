//! Somebody between two peers: accepts a connection, opens its own and relays what each side says,
//! changed if the test wants. And a peer that sends single frames over TLS.

use crate::certs::{Authority, Pair};
use crate::proc::TIMEOUT;
use crate::wire::worker_login;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use protocol::bodies::{ExecHello, Login, WorkerLogin};
use protocol::encode;
use protocol::frame::Frame;
use protocol::frame_reader::Inbox;
use protocol::kinds::Role;
use protocol::limits::TLS_PREFIX;
use protocol::names::{HostName, ServiceName};
use protocol::proof::Claim;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use transport::session::Session;
use transport::setup::{CallerFiles, ListenerFiles};
use transport::stream::Stream;

/// A connection on which a test sends frames, with TLS or without; it ends its test if nothing
/// comes in time.
#[derive(Debug)]
pub struct Peer {
    /// The connection.
    pub stream: Stream,
    inbox: Inbox,
}

impl Peer {
    fn new(socket: TcpStream, session: Option<Session>) -> io::Result<Self> {
        let mut stream = Stream::from(socket).with_tls(session);
        stream.set_nonblocking(true)?;
        loop {
            match stream.handshake() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => wait(&[&stream]),
                result => {
                    return result.map(|()| Self { stream, inbox: Inbox::default() });
                }
            }
        }
    }

    /// Connects to `ADDR:PORT` or `tls://ADDR:PORT`; the certificate must be signed by a CA of
    /// this file.
    ///
    /// # Errors
    /// Nobody listens, or the handshake failed.
    pub fn dial(at: &str, ca: PathBuf) -> io::Result<Self> {
        let bare = at.strip_prefix(TLS_PREFIX);
        let files = CallerFiles { ca: Some(ca), pair: None };
        let session = bare.map(|_| {
            let setup = files.load().expect("files");
            setup.session("127.0.0.1").expect("a session")
        });
        Self::new(TcpStream::connect(bare.unwrap_or(at))?, session)
    }

    /// Sends a frame. Those of a login are small, so the system takes them at once.
    ///
    /// # Errors
    /// The other side has closed.
    pub fn send(&mut self, frame: Frame) -> io::Result<()> {
        let bytes = encode::to_bytes(frame);
        assert_eq!(self.stream.write(&bytes)?, bytes.len());
        Ok(())
    }

    /// The next frame that has come already; `WouldBlock` = none has.
    ///
    /// # Errors
    /// As a read has them; `UnexpectedEof` at the end.
    fn take(&mut self) -> io::Result<Frame> {
        loop {
            if let Some(frame) = self.inbox.next_frame().expect("a frame") {
                return Ok(frame);
            }
            let mut bytes = [0; 65_536];
            match self.stream.read(&mut bytes)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                count => self.inbox.push(&bytes[..count]),
            }
        }
    }

    /// Waits for the next frame.
    ///
    /// # Errors
    /// The connection ended.
    pub fn next_frame(&mut self) -> io::Result<Frame> {
        loop {
            match self.take() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => wait(&[&self.stream]),
                result => return result,
            }
        }
    }
}

fn wait(streams: &[&Stream]) {
    let mut fds = Vec::new();
    for stream in streams {
        fds.push(PollFd::new(stream.as_fd(), PollFlags::POLLIN));
    }
    let limit = PollTimeout::try_from(TIMEOUT).expect("a time");
    assert!(poll(&mut fds, limit).expect("poll") > 0, "nothing came");
}

/// Relays frames both ways until one side ends.
fn carry(near: &mut Peer, far: &mut Peer, edit: fn(Frame) -> Frame) -> io::Result<()> {
    loop {
        for is_near in [true, false] {
            let (from, to) =
                if is_near { (&mut *near, &mut *far) } else { (&mut *far, &mut *near) };
            loop {
                match from.take() {
                    Ok(frame) => to.send(edit(frame))?,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
        wait(&[&near.stream, &far.stream]);
    }
}

/// Starts somebody who relays one connection to `target`, and returns where. Towards the side that
/// connects it speaks TLS with this certificate, or none; each frame passes through `edit`.
pub fn stand_before(
    target: &str,
    authority: &Authority,
    pair: Option<&Pair>,
    edit: fn(Frame) -> Frame,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let place = listener.local_addr().expect("an address").to_string();
    let setup = pair.cloned().map(|Pair { cert, key }| {
        let pair = transport::setup::Pair { cert, key };
        let files = ListenerFiles { pair, client_ca: None, is_exporter_only: false };
        files.load().expect("files")
    });
    let scheme = if setup.is_some() { TLS_PREFIX } else { "" };
    let (target, ca) = (target.to_owned(), authority.ca());
    #[expect(clippy::disallowed_methods, reason = "the one in between has a life of its own")]
    std::thread::spawn(move || {
        let (near, _) = listener.accept().expect("a connection");
        let session = setup.map(|setup| setup.session().expect("a session"));
        let mut near = Peer::new(near, session)?;
        let mut far = Peer::dial(&target, ca)?;
        carry(&mut near, &mut far, edit)
    });
    format!("{scheme}{place}")
}

/// For each port: its address, the first frame of a login, and the role and target that the proof
/// is bound to.
pub fn firsts<'a>(
    claim: &Claim,
    (client, worker, execd): (&'a str, &'a str, &'a str),
) -> [(&'a str, Frame, Role, &'static str); 3] {
    let host = HostName::new("h1").expect("a name");
    let token = Some(claim.clone());
    let hello = ExecHello { host, broker: "b".into(), token: token.clone() };
    let echo = ServiceName::new("echo").expect("a name");
    let login = Login { token: token.clone(), ..Login::to(echo) };
    let worker_login = WorkerLogin { token, ..worker_login("echo") };
    [
        (client, Frame::Login(login), Role::Client, "echo"),
        (worker, Frame::WorkerLogin(worker_login), Role::Worker, "echo"),
        (execd, Frame::ExecHello(hello), Role::Broker, "h1"),
    ]
}
