//! The broker's end of a connection: sends frames and bytes, and waits for expected frames.

use super::TIMEOUT;
use protocol::bodies::{ErrorBody, ExecExited, ExecHello, ExecStart, ExecStop};
use protocol::encode;
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::frame_reader::Inbox;
use protocol::ids::{RunId, WorkerId};
use protocol::names::{HostName, ServiceName};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Instant;
use transport::stream::Stream;

/// The broker's end of a connection.
pub(crate) struct Wire {
    stream: Stream,
    inbox: Inbox,
}

impl Wire {
    pub(crate) fn dial(address: &str) -> Self {
        let stream: Stream = match address.strip_prefix("unix:") {
            Some(path) => UnixStream::connect(path).unwrap().into(),
            None => TcpStream::connect(address).unwrap().into(),
        };
        stream.tune(None).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        Self { stream, inbox: Inbox::default() }
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        // isdexecd may close the connection while invalid bytes are still being sent.
        if let Err(error) = self.stream.write_all(bytes) {
            let kind = error.kind();
            assert!(matches!(kind, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error}");
        }
    }

    pub(crate) fn send(&mut self, frame: Frame) {
        self.send_bytes(&encode::to_bytes(frame));
    }

    /// The next frame; `None` = the end of the stream.
    pub(crate) fn read(&mut self) -> Option<Frame> {
        loop {
            let frame = self.inbox.next_frame().unwrap();
            if frame.is_some() {
                return frame;
            }
            let mut bytes = [0; 16 << 10];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(count) => self.inbox.push(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("nothing came in {TIMEOUT:?}: {error}"),
            }
        }
    }

    /// The next frame that is not a ping. Pings, each of which comes in time, end the wait after
    /// four times what a single frame may take.
    pub(crate) fn next(&mut self) -> Frame {
        let end = Instant::now() + 4 * TIMEOUT;
        loop {
            match self.read() {
                Some(Frame::Ping { sequence }) => {
                    assert!(Instant::now() < end, "only pings came");
                    self.send(Frame::Pong { sequence });
                }
                Some(frame) => return frame,
                None => panic!("the connection was closed"),
            }
        }
    }

    /// Expects an error with this code, then the end of the connection.
    pub(crate) fn expect_refusal(&mut self, code: ErrorCode) -> ErrorBody {
        let error = self.expect_error(code);
        assert_eq!(self.read(), None, "the connection stays open after: {error}");
        error
    }

    pub(crate) fn expect_error(&mut self, code: ErrorCode) -> ErrorBody {
        let frame = self.next();
        let Frame::Error { error, .. } = frame else { panic!("no error: {frame:?}") };
        assert_eq!(error.code, code, "{error}");
        error
    }

    pub(crate) fn hello(&mut self, name: &str) {
        let host = HostName::new("h1").unwrap();
        self.send(Frame::ExecHello(ExecHello { host, broker: name.into(), token: None }));
    }

    pub(crate) fn start(&mut self, worker: u32, path: &str, args: &[&str]) {
        self.send(start_frame(worker, path, args));
    }

    /// Starts a program; returns its process id.
    pub(crate) fn started(&mut self, worker: u32, path: &str, args: &[&str]) -> u32 {
        self.start(worker, path, args);
        match self.next() {
            Frame::ExecStarted(started) => {
                assert_eq!(
                    (started.worker, started.run),
                    (WorkerId(worker), RunId(u64::from(worker)))
                );
                started.pid
            }
            other => panic!("{other:?}"),
        }
    }

    /// Starts a program that is refused; returns whether that lasts, and the text.
    pub(crate) fn failed(&mut self, worker: u32, path: &str, args: &[&str]) -> (bool, String) {
        self.start(worker, path, args);
        match self.next() {
            Frame::ExecFailed(failed) => {
                assert_eq!(
                    (failed.worker, failed.run),
                    (WorkerId(worker), RunId(u64::from(worker)))
                );
                (failed.permanent, failed.text)
            }
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn stop(&mut self, worker: u32, grace_ms: u64) {
        let stop = ExecStop { worker: WorkerId(worker), run: RunId(u64::from(worker)), grace_ms };
        self.send(Frame::ExecStop(stop));
    }

    /// The next report of an end, with the lines of output before it.
    pub(crate) fn exited(&mut self) -> (ExecExited, Vec<String>) {
        let mut lines = Vec::new();
        loop {
            match self.next() {
                Frame::ExecExited(exited) => return (exited, lines),
                Frame::ExecOutput(output) => {
                    lines.push(format!("{} {} {}", output.stream, output.dropped, output.line));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// The next line of output.
    pub(crate) fn line(&mut self) -> String {
        match self.next() {
            Frame::ExecOutput(output) => output.line,
            other => panic!("{other:?}"),
        }
    }

    /// The running workers with their process ids.
    pub(crate) fn list(&mut self) -> Vec<(u32, u32)> {
        self.send(Frame::ExecList);
        match self.next() {
            Frame::ExecListed(listed) => {
                listed.children.iter().map(|child| (child.worker.0, child.pid)).collect()
            }
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn start_frame(worker: u32, path: &str, args: &[&str]) -> Frame {
    Frame::ExecStart(ExecStart {
        worker: WorkerId(worker),
        run: RunId(u64::from(worker)),
        service: ServiceName::new("echo").unwrap(),
        path: path.into(),
        args: args.iter().map(|arg| (*arg).into()).collect(),
        secret: "very-secret".into(),
        digest: 9,
        process: None,
        memory_max: 0,
        output_bytes: 0,
        output_files: 1,
    })
}

impl Wire {
    /// Like [`started`](Self::started), while other children write output.
    pub(crate) fn started_among_output(&mut self, worker: u32, path: &str, args: &[&str]) -> u32 {
        self.start(worker, path, args);
        loop {
            match self.next() {
                Frame::ExecStarted(started) => return started.pid,
                Frame::ExecOutput(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Asks for the list; returns it, one report of an end, and the number in the first line of
    /// output that has one.
    pub(crate) fn collect_after_restart(&mut self) -> (Vec<(u32, u32)>, ExecExited, u32) {
        self.send(Frame::ExecList);
        let (mut listed, mut exited, mut number) = (None, None, None);
        while listed.is_none() || exited.is_none() || number.is_none() {
            match self.next() {
                Frame::ExecListed(body) => {
                    let each = body.children.iter().map(|child| (child.worker.0, child.pid));
                    listed = Some(each.collect());
                }
                Frame::ExecExited(body) => exited = Some(body),
                Frame::ExecOutput(output) => number = number.or_else(|| output.line.parse().ok()),
                other => panic!("{other:?}"),
            }
        }
        (listed.unwrap(), exited.unwrap(), number.unwrap())
    }
}

impl Wire {
    /// Waits for the report of an end, past that of the start and lines of output.
    pub(crate) fn exited_after_start(&mut self) -> ExecExited {
        loop {
            match self.next() {
                Frame::ExecExited(exited) => return exited,
                Frame::ExecOutput(_) | Frame::ExecStarted(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) fn stop_run(&mut self, worker: u32, run: u64, grace_ms: u64) {
        self.send(Frame::ExecStop(ExecStop {
            worker: WorkerId(worker),
            run: RunId(run),
            grace_ms,
        }));
    }
}
