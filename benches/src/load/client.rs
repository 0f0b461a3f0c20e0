//! One client of the load: its connection, its open requests, and the check of the replies.

use crate::payload::Payload;
use crate::protocols::ClientProtocol;
use crate::sock::BufferedStream;
use std::collections::VecDeque;
use std::time::Instant;
use transport::stream::Stream;

/// A request under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    number: u32,
    /// When it left, or was meant to leave.
    at: Instant,
}

pub(super) struct LoadClient {
    pub(super) stream: BufferedStream,
    pub(super) protocol: Box<dyn ClientProtocol>,
    pub(super) is_ready: bool,
    pub(super) is_dirty: bool,
    /// Requests of the open loop that could not leave yet, by the moment at which they were meant
    /// to.
    pub(super) late: VecDeque<Instant>,
    asked: VecDeque<Asked>,
    conn: u32,
    next: u32,
}

impl LoadClient {
    /// A client that has not said anything.
    pub(super) fn new(stream: Stream, protocol: Box<dyn ClientProtocol>, conn: u32) -> Self {
        Self {
            stream: BufferedStream::new(stream),
            protocol,
            is_ready: false,
            is_dirty: false,
            late: VecDeque::new(),
            asked: VecDeque::new(),
            conn,
            next: 1,
        }
    }

    /// How many requests are under way.
    pub(super) fn under_way(&self) -> usize {
        self.asked.len()
    }

    /// Puts a request into the outbox.
    pub(super) fn ask(&mut self, size: usize, at: Instant) {
        let number = self.next;
        self.next = self.next.wrapping_add(1).max(1);
        self.asked.push_back(Asked { number, at });
        self.protocol.ask(Payload { conn: self.conn, number, size }, &mut self.stream.out);
    }
}

/// Compares a reply with its request; when that was asked.
///
/// # Errors
/// Nothing was asked that this answers.
pub(super) fn check(
    asked: &mut VecDeque<Asked>,
    conn: u32,
    size: usize,
    reply: (Option<u32>, &[u8]),
) -> Result<Instant, String> {
    let (number, body) = reply;
    // Where the protocol has no place for a number the payload has one; a shorter one is in order.
    let number = number.or_else(|| Payload::number_in(body));
    let place = match number {
        Some(number) => asked.iter().position(|one| one.number == number),
        None => (!asked.is_empty()).then_some(0),
    };
    let found = place.and_then(|place| asked.remove(place));
    let Some(Asked { number, at }) = found else {
        return Err(format!(
            "client {conn} got a reply with number {number:?}, which it has not asked"
        ));
    };
    let wanted = Payload { conn, number, size };
    if wanted.is(body) {
        Ok(at)
    } else {
        Err(format!(
            "client {conn}: the reply to request {number} has {} bytes and is not the payload of {size} that was sent",
            body.len()
        ))
    }
}

impl LoadClient {
    /// Reads what came: calls `reply` for each reply with the moment at which it was asked.
    /// `Ok(true)` = the peer has closed.
    pub(super) fn receive(
        &mut self,
        scratch: &mut [u8],
        size: usize,
        mut reply: impl FnMut(Instant),
    ) -> Result<bool, String> {
        use crate::protocols::Parsed;
        let Self { stream, protocol, is_ready, asked, conn, .. } = self;
        stream.receive(scratch, |bytes, out| match protocol.parse(bytes, out)? {
            Parsed::Part => Ok(0),
            Parsed::Passed { used } => Ok(used),
            Parsed::Ready { used } => {
                *is_ready = true;
                Ok(used)
            }
            Parsed::Reply { used, number, body } => {
                reply(check(asked, *conn, size, (number, &bytes[body]))?);
                Ok(used)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn asked() -> VecDeque<Asked> {
        (1..=3).map(|number| Asked { number, at: clock::now() }).collect()
    }

    fn bytes(conn: u32, number: u32, size: usize) -> Vec<u8> {
        let mut out = vec![];
        Payload { conn, number, size }.append(&mut out);
        out
    }

    #[test]
    fn replies_may_come_in_any_order_and_each_is_compared() {
        let mut open = asked();
        for number in [2, 1, 3] {
            let body = bytes(9, number, 64);
            assert!(check(&mut open, 9, 64, (Some(number), &body)).is_ok());
        }
        assert!(open.is_empty());
    }

    #[test]
    fn a_reply_that_is_not_right_is_an_error() {
        let right = bytes(9, 1, 64);
        let wrong = |reply: (Option<u32>, &[u8])| check(&mut asked(), 9, 64, reply).unwrap_err();
        assert!(wrong((Some(4), &right)).contains("has not asked"));
        assert!(wrong((Some(2), &right)).contains("is not the payload"));
        assert!(wrong((Some(1), &right[..63])).contains("63 bytes"));
        assert!(wrong((None, &bytes(8, 1, 64))).contains("is not the payload"));
        let mut open = asked();
        assert!(check(&mut open, 9, 64, (None, &right)).is_ok());
        assert!(check(&mut open, 9, 64, (None, &right)).is_err(), "the same reply twice");
        let mut open = asked();
        assert!(check(&mut open, 9, 0, (None, &[])).is_ok(), "without a number they are in order");
    }
}
