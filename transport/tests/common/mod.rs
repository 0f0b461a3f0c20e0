//! A test CA, and two sessions connected by a simulated wire that takes and gives as many bytes as
//! the test wants.

#![allow(dead_code, reason = "each test file uses a part of it")]

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use tempfile::TempDir;
use transport::session::Session;
use transport::setup::{CallerConfig, CallerFiles, ListenerConfig, ListenerFiles, Pair};

/// A test CA with its files in a temporary directory.
pub(crate) struct Authority {
    pub(crate) folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

pub(crate) fn write_private(path: &Path, text: &str) {
    std::fs::write(path, text).expect("it is possible here");
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).expect("it is possible here");
}

impl Authority {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("it is possible here");
        let name = folder.path().to_string_lossy().into_owned();
        Self::named(folder, name)
    }

    /// A CA with this name and its files in this folder.
    pub(crate) fn named(folder: TempDir, name: String) -> Self {
        let key = KeyPair::generate().expect("it is possible here");
        let mut params = CertificateParams::new(Vec::new()).expect("it is possible here");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let cert = params.self_signed(&key).expect("it is possible here");
        std::fs::write(folder.path().join("ca.pem"), cert.pem()).expect("it is possible here");
        write_private(&folder.path().join("ca.key"), &key.serialize_pem());
        Self { folder, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Signs a certificate for `localhost` that is valid in these years.
    pub(crate) fn sign(&self, file: &str, years: (i32, i32)) -> Pair {
        let mut params =
            CertificateParams::new(vec!["localhost".to_owned()]).expect("it is possible here");
        params.not_before = date_time_ymd(years.0, 1, 1);
        params.not_after = date_time_ymd(years.1, 1, 1);
        let key = KeyPair::generate().expect("it is possible here");
        let cert = params.signed_by(&key, &self.issuer).expect("it is possible here");
        let at = |end: &str| self.folder.path().join(format!("{file}.{end}"));
        std::fs::write(at("pem"), cert.pem()).expect("it is possible here");
        write_private(&at("key"), &key.serialize_pem());
        Pair { cert: at("pem"), key: at("key") }
    }

    pub(crate) fn listener(&self, pair: Pair, client_ca: Option<PathBuf>) -> ListenerConfig {
        ListenerFiles { pair, client_ca, is_exporter_only: false }
            .load()
            .expect("it is possible here")
    }

    pub(crate) fn caller(&self, pair: Option<Pair>) -> CallerConfig {
        CallerFiles { ca: Some(self.ca()), pair }.load().expect("it is possible here")
    }

    /// A listener and a caller that trust each other.
    pub(crate) fn both(&self) -> (ListenerConfig, CallerConfig) {
        (self.listener(self.sign("good", (2020, 2090)), None), self.caller(None))
    }
}

/// One direction of a connection.
#[derive(Default)]
pub(crate) struct Pipe {
    pub(crate) bytes: VecDeque<u8>,
    /// Bytes that were written in this direction.
    pub(crate) passed: usize,
    /// Number of bytes after which one read returns nothing.
    pub(crate) pause_at: Option<usize>,
    /// Number of bytes after which the connection ends.
    pub(crate) end_at: Option<usize>,
    /// Most bytes that wait; 0 = no limit.
    pub(crate) room: usize,
}

/// One end of a simulated connection.
pub(crate) struct End {
    pub(crate) input: Rc<RefCell<Pipe>>,
    pub(crate) output: Rc<RefCell<Pipe>>,
    /// Most bytes of one call; 0 = no limit.
    pub(crate) most: usize,
}

pub(crate) fn wire() -> (End, End) {
    let (one, other) = (Rc::<RefCell<Pipe>>::default(), Rc::<RefCell<Pipe>>::default());
    let near = End { input: Rc::clone(&one), output: Rc::clone(&other), most: 0 };
    (near, End { input: other, output: one, most: 0 })
}

impl Read for End {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut pipe = self.input.borrow_mut();
        let mut count = buffer.len().min(pipe.bytes.len());
        if self.most > 0 {
            count = count.min(self.most);
        }
        for (at, is_end) in [(pipe.pause_at, false), (pipe.end_at, true)] {
            let Some(left) = at.map(|at| at.saturating_sub(pipe.passed)) else { continue };
            if left == 0 {
                pipe.pause_at = None;
                return if is_end { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) };
            }
            count = count.min(left);
        }
        if count == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        for slot in &mut buffer[..count] {
            *slot = pipe.bytes.pop_front().expect("it is possible here");
        }
        pipe.passed += count;
        Ok(count)
    }
}

impl Write for End {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut pipe = self.output.borrow_mut();
        let mut count = bytes.len();
        if self.most > 0 {
            count = count.min(self.most);
        }
        if pipe.room > 0 {
            count = count.min(pipe.room.saturating_sub(pipe.bytes.len()));
        }
        if count == 0 && !bytes.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        pipe.bytes.extend(&bytes[..count]);
        Ok(count)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write(&parts.concat_all())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

trait ConcatAll {
    fn concat_all(&self) -> Vec<u8>;
}

impl ConcatAll for [IoSlice<'_>] {
    fn concat_all(&self) -> Vec<u8> {
        self.iter().flat_map(|part| part.iter().copied()).collect()
    }
}

/// Runs the handshake; returns the result of each side.
pub(crate) fn handshake(
    one: (&mut Session, &mut End),
    other: (&mut Session, &mut End),
) -> (io::Result<()>, io::Result<()>) {
    let (mut first, mut second) = (one.0.handshake(one.1), other.0.handshake(other.1));
    let is_waiting = |result: &io::Result<()>| {
        result.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    };
    for _ in 0..100_000 {
        if !is_waiting(&first) && !is_waiting(&second) {
            break;
        }
        if is_waiting(&first) {
            first = one.0.handshake(one.1);
        }
        if is_waiting(&second) {
            second = other.0.handshake(other.1);
        }
        // A side that has finished may still have something to send.
        let _ = (one.0.flush(one.1), other.0.flush(other.1));
    }
    (first, second)
}
