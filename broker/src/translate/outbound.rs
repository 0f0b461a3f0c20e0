//! Turns what the engine sends into frames. `protocol::encode` writes their bytes.

use bytes::Bytes;
use protocol::bodies::{ExecStart, Format};
use protocol::encode::{self, EncodedFrame};
use protocol::errors::Whose;
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::kinds::Role;
use protocol::op::reply::OpReply;

/// An operator's answer as a data frame. The text stands exactly as [`OpReply::text`] gives it.
pub fn answer(head: Header, reply: &OpReply, format: Format) -> Frame {
    Frame::data(head, Bytes::from(reply.render(format)))
}

/// The request to an execd to start a program, with the secret for its login.
pub fn start(mut start: ExecStart, secret: String) -> Frame {
    start.secret = secret;
    Frame::ExecStart(start)
}

/// The error about a connection that is refused or given up by the reactor itself.
pub fn refusal(code: protocol::errors::ErrorCode, text: impl Into<String>) -> Frame {
    Frame::refusal(protocol::bodies::ErrorBody::new(code, text))
}

/// Encodes a frame for the peer's role. An error about a whole connection (transaction 0) that
/// blames the program at the other end calls it the worker if it is one.
#[inline]
pub fn encode(frame: Frame, role: Role) -> EncodedFrame {
    match frame {
        Frame::Error { head, error } if role == Role::Worker && head.transaction == 0 => {
            encode::error_to(head, &error, Whose::Worker)
        }
        frame => encode::encode(frame),
    }
}
