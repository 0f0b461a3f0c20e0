//! Partial frames: how long a frame may take to come, and how many bytes of such frames there may
//! be in all, so that neither a peer that sends a byte now and then nor one that never sends the
//! rest takes more than a connection. How they are read: `frame_reader`, `read`.

use super::Reactor;
use super::buffer_pool::BufferPool;
use super::conn::{Conn, Phase};
use protocol::decode::WireError;
use protocol::errors::ErrorCode;
use protocol::header::Header;
use protocol::kinds::Role;
use protocol::time::Tick;

/// Looks at the connections in each `frame_ms`. It is looks that are counted, not time, so that a
/// broker that was stopped itself blames nobody for it.
const LOOKS: u64 = 8;
/// So many bytes that came give the frame one millisecond more: whoever sends at this rate is slow,
/// not silent.
const BYTES_A_MS: u64 = 16;

/// What is known of all partial frames.
#[derive(Debug, Default)]
pub(super) struct PartialFrames {
    /// Bytes set aside for large frames of clients that are partial: all that were
    /// announced, since memory that was used before is resident from the first one on.
    bytes: usize,
    /// When to look next.
    pub(super) look_at: Tick,
}

impl Reactor {
    /// When it is time: looks for frames that have been on their way for too long.
    #[inline]
    pub(super) fn check_partial_frames(&mut self) {
        let pause = (self.io.limits.frame_ms / LOOKS).max(1);
        let (now, look_at) = (self.io.now, &mut self.io.partial_frames.look_at);
        if now >= *look_at {
            *look_at = now.plus_millis(pause);
            self.find_late(pause);
        } else {
            // The setting may have become smaller.
            *look_at = (*look_at).min(now.plus_millis(pause));
        }
    }

    fn find_late(&mut self, pause: u64) {
        let frame_ms = self.io.limits.frame_ms;
        let mut late = Vec::new();
        self.io.links.each(|link, conn| {
            let is_partial =
                conn.phase == Phase::Open && !conn.is_paused && conn.reader.has_partial();
            if is_partial {
                // The first look may come when the frame has just begun.
                let seen_ms = u64::from(conn.reader.looks) * pause;
                conn.reader.looks += 1;
                let came = conn.reader.partial_bytes() as u64;
                if seen_ms >= frame_ms + came / BYTES_A_MS {
                    late.push((link, came));
                }
            } else {
                conn.reader.looks = 0;
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
    /// Room for the rest of a client's large frame that has begun to come; what workers and hosts
    /// send is bounded by their number.
    ///
    /// # Errors
    /// There is too much of such: the frame is to be thrown away, the connection is well.
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
            return Err(WireError { code, text, sequence, skip, more, reply });
        }
        self.bytes += size;
        conn.counted = size;
        Ok(())
    }

    /// The frame is whole, or its connection is gone.
    pub(super) fn release(&mut self, conn: &mut Conn) {
        self.bytes -= std::mem::take(&mut conn.counted);
    }
}
