//! Reads a connection's socket into the loop's buffer. What it knows between two reads: what the
//! system has reported of the socket, and the bytes that make no whole frame yet.

use super::buffer_pool::BufferPool;
use crate::engine::input::Close;
use protocol::frame_reader::{FrameReader, LARGE_FRAME_BYTES, ReadBuffer};
use std::io::{self, ErrorKind, IoSliceMut, Read};

/// The reading side of one connection.
#[derive(Debug, Default)]
pub(super) struct SocketReader {
    pub(super) frames: FrameReader,
    /// The system reported bytes that are not all read.
    pub(super) is_readable: bool,
    /// The system reported that the peer closed, so reading goes on after a short read.
    pub(super) is_hung_up: bool,
    /// The login was accepted, so large frames are allowed.
    pub(super) is_known: bool,
    /// The last read returned bytes.
    pub(super) has_heard: bool,
    /// How the connection ended; received frames may still wait to be delivered.
    pub(super) ended: Option<Close>,
    /// How many checks of `partial_frames` found the frame with the number `looked_at` incomplete.
    pub(super) looks: u32,
    pub(super) looked_at: u32,
}

/// How a connection ended on which a system call failed with this error.
pub(super) fn end_of(error: &io::Error) -> Close {
    match error.kind() {
        // Keepalive, or the limit of retransmissions.
        ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            Close::TimedOut
        }
        _ => Close::Reset,
    }
}

impl SocketReader {
    /// Puts the kept bytes, and what one read gives, into `buffer`, which is empty.
    pub(super) fn fill<R: Read>(
        &mut self,
        stream: &mut R,
        buffer: &mut ReadBuffer,
        pool: &mut BufferPool,
    ) {
        self.has_heard = false;
        pool.give_tail(self.frames.restore(buffer));
        // More than an incomplete small frame was kept, so there are whole frames, which go first.
        let has_whole = buffer.len() >= LARGE_FRAME_BYTES;
        if has_whole || self.ended.is_some() || !self.is_readable {
            return;
        }
        let (large, rest) = self.frames.space(buffer);
        let wanted = large.len() + rest.len();
        let result = if large.is_empty() {
            stream.read(rest)
        } else {
            stream.read_vectored(&mut [IoSliceMut::new(large), IoSliceMut::new(rest)])
        };
        match result {
            Ok(0) => self.end(Close::Eof),
            Ok(count) => {
                // A short read got all there is: these are stream sockets, watched edge by edge.
                self.is_readable = count == wanted || self.is_hung_up;
                self.has_heard = true;
                self.frames.filled(buffer, count);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_readable = false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => self.end(end_of(&error)),
        }
    }

    /// Notes that the connection ended; nothing more is read.
    pub(super) fn end(&mut self, how: Close) {
        self.is_readable = false;
        self.ended = Some(how);
    }
}
