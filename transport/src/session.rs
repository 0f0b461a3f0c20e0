//! One TLS connection over a socket that the owner passes to each call: ciphertext on one side, the
//! bytes of frames on the other. No call waits; what the socket does not take or give now stays for
//! the next call.
//!
//! Memory is bounded: at most [`SCRATCH_BYTES`] read and not decrypted yet, one record decrypted
//! and not taken, and [`AHEAD_BYTES_MAX`] encrypted and not written.

use crate::end_point::end_point;
use crate::words::{self, Side};
use protocol::proof::CHANNEL_BYTES;
use rustls::Connection;
use std::fmt;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::sync::Arc;

/// Most bytes of ciphertext in one read of the socket.
pub const SCRATCH_BYTES: usize = 16 * 1024;
/// Most bytes of frames that are encrypted before the socket has taken them.
pub const AHEAD_BYTES_MAX: usize = 64 * 1024;

/// The label of the channel binding `tls-exporter` (RFC 9266).
const CHANNEL_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// The alert `decode_error` (RFC 8446, section 6) as a plain record, for a peer without keys yet.
const DECODE_ERROR: &[u8] = &[0x15, 3, 3, 0, 2, 2, 50];

/// Why a session can't go on. The other side is told (by an alert, or in plain text if it speaks no
/// TLS), so flush what waits before closing the socket.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// The other side speaks isect without TLS.
    Plain,
    /// TLS failed: a certificate, a version, garbage.
    Tls(rustls::Error),
}

/// One TLS connection.
pub struct Session {
    conn: Connection,
    /// Of a listener: the hash of the certificate that this connection shows, if proofs that are
    /// bound to it are taken.
    end_point: Option<Arc<[u8]>>,
    /// Ciphertext that was read but not decrypted yet, because there was no room for the result.
    rest: Vec<u8>,
    /// Whether no byte has come yet.
    is_fresh: bool,
    /// Whether the socket has reached its end.
    is_ended: bool,
    /// Whether the other side announced its end (`close_notify`).
    is_closed: bool,
    /// Bytes that are decrypted and wait to be taken.
    waiting: usize,
    fault: Option<Fault>,
    /// Whether the other side must still be told of the fault.
    is_fault_unsent: bool,
    /// An error of the socket after a read that gave bytes; the next read returns it.
    error: Option<ErrorKind>,
    written: u64,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("is_handshaking", &self.is_handshaking())
            .field("is_closed", &self.is_closed)
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}

/// Space for decrypted bytes, over several slices.
struct Room<'a, 'b> {
    slices: &'a mut [IoSliceMut<'b>],
    index: usize,
    at: usize,
    filled: usize,
}

impl Room<'_, '_> {
    /// The next slice with free space.
    fn next(&mut self) -> Option<&mut [u8]> {
        while self.slices.get(self.index).is_some_and(|slice| self.at == slice.len()) {
            self.index += 1;
            self.at = 0;
        }
        self.slices.get_mut(self.index).map(|slice| &mut slice[self.at..])
    }

    fn is_full(&mut self) -> bool {
        self.next().is_none()
    }

    fn fill(&mut self, count: usize) {
        self.at += count;
        self.filled += count;
    }
}

impl Session {
    pub(crate) fn new(conn: impl Into<Connection>, end_point: Option<Arc<[u8]>>) -> Self {
        let mut conn = conn.into();
        // `write` bounds what is encrypted ahead.
        conn.set_buffer_limit(None);
        Self {
            conn,
            end_point,
            rest: Vec::new(),
            is_fresh: true,
            is_ended: false,
            is_closed: false,
            waiting: 0,
            fault: None,
            is_fault_unsent: false,
            error: None,
            written: 0,
        }
    }

    fn side(&self) -> Side {
        match self.conn {
            Connection::Client(_) => Side::Caller,
            Connection::Server(_) => Side::Listener,
        }
    }

    /// Whether the handshake is not finished; no frame leaves before that.
    pub fn is_handshaking(&self) -> bool {
        self.conn.is_handshaking()
    }

    /// The channel binding: a secret of this connection's two ends, `tls-exporter` of RFC 9266.
    ///
    /// # Errors
    /// The handshake is not finished.
    pub fn channel(&self) -> Result<[u8; CHANNEL_BYTES], String> {
        self.conn
            .export_keying_material([0; CHANNEL_BYTES], CHANNEL_LABEL, Some(&[]))
            .map_err(|error| format!("the TLS session has no keys to bind a proof to: {error}"))
    }

    /// The channel binding `tls-server-end-point` of RFC 5929: the hash of the listener's
    /// certificate, as this end sees it. `None`: no certificate came, it is signed in a way that
    /// has no such hash, or the listener takes no proofs that are bound to it.
    pub fn end_point(&self) -> Option<Arc<[u8]>> {
        match &self.conn {
            Connection::Server(_) => self.end_point.clone(),
            Connection::Client(conn) => {
                let shown = conn.peer_certificates().and_then(<[_]>::first);
                shown.and_then(|certificate| end_point(certificate)).map(Into::into)
            }
        }
    }

    /// Whether ciphertext waits for the socket.
    pub fn has_unsent(&self) -> bool {
        self.conn.wants_write() || self.is_fault_unsent
    }

    /// Whether a read would return something without touching the socket: bytes, the end, or a
    /// fault.
    pub fn has_more(&self) -> bool {
        self.waiting > 0
            || !self.rest.is_empty()
            || self.is_closed
            || self.is_ended
            || self.error.is_some()
            || self.fault.is_some()
    }

    /// Why the session can't go on; `None` while it can.
    pub const fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    /// Why the session can't go on, in words with a cure; `None` while it can.
    pub fn fault_text(&self) -> Option<String> {
        self.fault.as_ref().map(|fault| words::fault_text(fault, self.side()))
    }

    /// Bytes of ciphertext that the socket has taken so far; it grows with all progress.
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Reads until the slices are full or the socket has nothing more for now, as edge-triggered
    /// polling needs it. Returns `WouldBlock` if the socket had nothing at all. Continues the
    /// handshake on the way.
    ///
    /// # Errors
    /// As [`read_some`](Self::read_some).
    pub fn read<S: Read + Write>(
        &mut self,
        socket: &mut S,
        slices: &mut [IoSliceMut<'_>],
    ) -> io::Result<usize> {
        self.read_until(socket, slices, false)
    }

    /// Reads until there is at least one byte; for sockets that are waited for.
    ///
    /// # Errors
    /// `WouldBlock`: nothing came yet. `UnexpectedEof`: the connection ended without
    /// `close_notify`, so something may be missing. `InvalidData`: see [`fault`](Self::fault).
    /// `Ok(0)` is the end that the other side announced.
    pub fn read_some<S: Read + Write>(
        &mut self,
        socket: &mut S,
        slices: &mut [IoSliceMut<'_>],
    ) -> io::Result<usize> {
        self.read_until(socket, slices, true)
    }

    fn read_until<S: Read + Write>(
        &mut self,
        socket: &mut S,
        slices: &mut [IoSliceMut<'_>],
        is_once: bool,
    ) -> io::Result<usize> {
        let mut room = Room { slices, index: 0, at: 0, filled: 0 };
        self.take(&mut room)?;
        let rest = std::mem::take(&mut self.rest);
        self.feed(&rest, &mut room)?;
        let mut scratch = [0; SCRATCH_BYTES];
        loop {
            if room.is_full() || (is_once && room.filled > 0) {
                return Ok(room.filled);
            }
            if let Some(kind) = self.error.take_if(|_| room.filled == 0) {
                self.is_ended = true;
                return Err(kind.into());
            }
            if self.has_more() {
                return self.end(room.filled);
            }
            match socket.read(&mut scratch) {
                Ok(0) => self.is_ended = true,
                Ok(count) => {
                    self.feed(&scratch[..count], &mut room)?;
                    if self.has_unsent() {
                        self.answer(socket)?;
                    }
                    // A short read got all that the socket had.
                    if count < scratch.len() && room.filled > 0 {
                        return Ok(room.filled);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock && room.filled > 0 => {
                    return Ok(room.filled);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if room.filled > 0 => {
                    // The system reports this error once; the next read would see an orderly end.
                    self.error = Some(error.kind());
                    return Ok(room.filled);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Continues the handshake and takes no frames; `Ok` = the handshake is finished.
    ///
    /// # Errors
    /// `WouldBlock`: more must come from the other side. Others: as [`read_some`](Self::read_some).
    pub fn handshake<S: Read + Write>(&mut self, socket: &mut S) -> io::Result<()> {
        let mut room = Room { slices: &mut [], index: 0, at: 0, filled: 0 };
        let mut scratch = [0; SCRATCH_BYTES];
        self.answer(socket)?;
        while self.conn.is_handshaking() && self.fault.is_none() && !self.is_closed {
            match socket.read(&mut scratch) {
                Ok(0) => {
                    self.is_ended = true;
                    return self.end(0).map(drop);
                }
                Ok(count) => {
                    self.feed(&scratch[..count], &mut room)?;
                    self.answer(socket)?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.fault.is_some() { self.end(0).map(drop) } else { Ok(()) }
    }

    /// Continues the handshake with bytes that were read from the socket. The answer waits for
    /// [`flush`](Self::flush), so another thread can do this, the expensive part of a handshake.
    pub fn advance(&mut self, bytes: &[u8]) {
        let mut room = Room { slices: &mut [], index: 0, at: 0, filled: 0 };
        // A fault is kept in the session, and a buffer in memory can't fail.
        let _ = self.feed(bytes, &mut room);
    }

    /// What a read returns at the end of the socket.
    fn end(&self, filled: usize) -> io::Result<usize> {
        if filled > 0 || (self.is_closed && self.fault.is_none()) {
            return Ok(filled);
        }
        match self.fault_text() {
            Some(fault_text) => Err(io::Error::new(ErrorKind::InvalidData, fault_text)),
            None => Err(io::Error::new(
                ErrorKind::UnexpectedEof,
                "the connection ended without the end of its TLS session",
            )),
        }
    }

    /// Writes what the handshake or a fault has to say, as far as the socket takes it.
    fn answer<S: Write>(&mut self, socket: &mut S) -> io::Result<()> {
        match self.flush(socket) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            // The other side is gone; what it sent before is still worth reading.
            Err(_) if self.fault.is_some() || self.is_closed => Ok(()),
            result => result,
        }
    }

    /// Moves decrypted bytes into the free space.
    fn take(&mut self, room: &mut Room<'_, '_>) -> io::Result<()> {
        while self.waiting > 0 {
            let Some(slice) = room.next() else { return Ok(()) };
            let count = self.conn.reader().read(slice)?;
            if count == 0 {
                self.waiting = 0;
                return Ok(());
            }
            room.fill(count);
            self.waiting -= count.min(self.waiting);
        }
        Ok(())
    }

    /// Decrypts bytes of the socket.
    fn feed(&mut self, mut bytes: &[u8], room: &mut Room<'_, '_>) -> io::Result<()> {
        if let (true, Some(first)) = (self.is_fresh, bytes.first()) {
            self.is_fresh = false;
            if words::is_plain(*first, self.side()) {
                self.fault = Some(Fault::Plain);
            }
        }
        while !bytes.is_empty() && self.fault.is_none() && !self.is_closed {
            if self.waiting > 0 {
                self.rest = bytes.to_vec();
                return Ok(());
            }
            self.conn.read_tls(&mut bytes)?;
            match self.conn.process_new_packets() {
                Ok(state) => {
                    self.waiting = state.plaintext_bytes_to_read();
                    self.is_closed = state.peer_has_closed();
                }
                Err(error) => {
                    self.fault = Some(Fault::Tls(error));
                    // rustls makes an alert for most faults, but not for all.
                    self.is_fault_unsent = self.conn.is_handshaking() && !self.conn.wants_write();
                }
            }
            self.take(room)?;
        }
        Ok(())
    }

    /// Encrypts and writes; returns how many bytes of the slices were taken. Those leave with this
    /// call, a later one or [`flush`](Self::flush). After a fault the bytes are dropped, but a peer
    /// without TLS gets them unencrypted.
    ///
    /// # Errors
    /// `WouldBlock`: nothing can be taken now, as during the handshake. Others: the socket broke.
    pub fn write<S: Write>(&mut self, socket: &mut S, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &self.fault {
            Some(Fault::Plain) => return socket.write_vectored(slices),
            Some(Fault::Tls(_)) => {
                self.flush(socket)?;
                return Ok(slices.iter().map(|slice| slice.len()).sum());
            }
            None => self.flush(socket)?,
        }
        if self.conn.is_handshaking() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let (mut taken, mut ahead) = (0, 0);
        for slice in slices {
            let mut rest = &slice[..];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(AHEAD_BYTES_MAX - ahead));
                self.conn.writer().write_all(now)?;
                taken += now.len();
                ahead += now.len();
                rest = later;
                if ahead == AHEAD_BYTES_MAX {
                    if self.push(socket)? {
                        return Ok(taken);
                    }
                    ahead = 0;
                }
            }
        }
        self.push(socket)?;
        Ok(taken)
    }

    /// Writes what is encrypted; returns whether some of it still waits.
    fn push<S: Write>(&mut self, socket: &mut S) -> io::Result<bool> {
        match self.flush(socket) {
            Ok(()) => Ok(false),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Writes what is already encrypted.
    ///
    /// # Errors
    /// `WouldBlock`: the socket did not take all. Others: the socket broke.
    pub fn flush<S: Write>(&mut self, socket: &mut S) -> io::Result<()> {
        if self.fault == Some(Fault::Plain) {
            return Ok(());
        }
        if self.is_fault_unsent {
            let count = socket.write(DECODE_ERROR)?;
            self.is_fault_unsent = false;
            self.written += count as u64;
        }
        while self.conn.wants_write() {
            match self.conn.write_tls(socket) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count as u64,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Announces the end after all that was written (`close_notify`); [`flush`](Self::flush) sends
    /// it.
    pub fn close(&mut self) {
        if self.fault.is_none() && !self.conn.is_handshaking() {
            self.conn.send_close_notify();
        }
    }
}
