//! Limits incomplete frames: how long one may take to arrive, and how many bytes all of them may
//! hold. So a slow or stalled sender holds a connection and nothing more. `read` reads the
//! frames.

use super::Reactor;
use super::buffer_pool::BufferPool;
use super::conn::{Conn, HalfClose, Phase};
use protocol::{ErrorCode, Header, Kind, Role, Tick, WireError};
use std::mem;

/// Checks of the connections per `frame_ms`. The limit counts checks, not time, so that peers do
/// not pay for a time in which the broker itself was stopped.
const LOOKS: u64 = 8;
/// Each time this many bytes arrive, the frame gets one more millisecond: a peer that sends at this
/// rate is slow but not stalled.
const BYTES_A_MS: u64 = 16;

/// The state of the limits on incomplete frames.
#[derive(Debug, Default)]
pub(super) struct PartialFrames {
    /// Bytes set aside for large frames of clients that are partial: all that were
    /// announced, since memory that was used before is resident from the first one on.
    bytes: usize,
    /// Tick of the next check.
    pub(super) look_at: Tick,
}

impl Reactor {
    /// Closes connections whose frame has been incomplete for too long; does nothing before the
    /// next check is due.
    #[inline]
    pub(super) fn check_partial_frames(&mut self) {
        let interval = (self.io.limits.frame_ms / LOOKS).max(1);
        let (now, look_at) = (self.io.now, &mut self.io.partial_frames.look_at);
        if now >= *look_at {
            *look_at = now.plus_millis(interval);
            self.find_late(interval);
        } else {
            // The setting may have become smaller.
            *look_at = (*look_at).min(now.plus_millis(interval));
        }
    }

    fn find_late(&mut self, interval: u64) {
        let frame_ms = self.io.limits.frame_ms;
        let mut late = Vec::new();
        self.io.links.each(|link, conn| {
            // What a client that sends nothing more began is over, and its answers still come.
            let is_partial = conn.phase == Phase::Open
                && !conn.is_unread
                && conn.half_close != HalfClose::Reported
                && conn.reader.frames.has_partial();
            let number = conn.reader.frames.number();
            if !is_partial || mem::replace(&mut conn.reader.looked_at, number) != number {
                conn.reader.looks = 0;
            }
            if is_partial {
                // The first check may come just after the frame began, so it does not count.
                let seen_ms = u64::from(conn.reader.looks) * interval;
                conn.reader.looks += 1;
                let came = conn.reader.frames.partial_bytes() as u64;
                if seen_ms >= frame_ms + came / BYTES_A_MS {
                    late.push((link, came));
                }
            }
        });
        for (link, came) in late {
            let text = format!(
                "{came} bytes of a frame came, and not the rest of it in time (frame_ms is \
                 {frame_ms})"
            );
            self.garbage(link, WireError::fatal(ErrorCode::IdleTimeout, text, 0));
        }
    }
}

impl PartialFrames {
    /// Reserves memory for a client's large frame that has begun to arrive. Frames of workers and
    /// hosts need no reservation, since their number is limited.
    ///
    /// # Errors
    /// The limit is reached: the frame is to be discarded; the connection stays usable.
    pub(super) fn reserve(
        &mut self,
        conn: &mut Conn,
        head: &Header,
        max: usize,
    ) -> Result<(), WireError> {
        if conn.role != Role::Client {
            return Ok(());
        }
        let size = BufferPool::size_for(head.len as usize);
        if self.bytes + size > max {
            let text = format!(
                "large frames that have come in part hold {} of {max} bytes (inboxes_bytes_max)",
                self.bytes
            );
            let (code, sequence, skip) = (ErrorCode::Overloaded, head.sequence, Some(head.len));
            let (more, reply) = (head.more != 0, head.reply != 0);
            let is_publish = head.command == Kind::Publish.number();
            return Err(WireError { code, text, sequence, skip, more, reply, is_publish });
        }
        self.bytes += size;
        conn.counted = size;
        Ok(())
    }

    /// Releases the memory of a frame that is whole, or whose connection is gone.
    pub(super) fn release(&mut self, conn: &mut Conn) {
        self.bytes -= mem::take(&mut conn.counted);
    }
}
