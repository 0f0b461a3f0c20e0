//! Turns what the engine sends into frames. `protocol::encode` writes their bytes.

use super::json;
use bytes::Bytes;
use protocol::bodies::{ExecStart, Format};
use protocol::encode::{self, EncodedFrame};
use protocol::errors::Whose;
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::kinds::Role;
use protocol::op::reply::OpReply;

/// Most bytes of an answer in one frame.
const PIECE_BYTES: usize = 64 << 10;

/// An operator's answer as data frames, all but the last with `more`, and of at most `body_max`
/// bytes each. The bytes stand exactly as [`render`] gives them. An answer that is followed by
/// others is one frame: who reads it tells them apart by that.
pub fn answer(head: Header, reply: &OpReply, format: Format, body_max: usize) -> Vec<Frame> {
    let mut rest = Bytes::from(render(reply, format));
    let size = if head.more == 0 { body_max.min(PIECE_BYTES) } else { usize::MAX };
    let mut frames = Vec::with_capacity(1);
    while rest.len() > size {
        let piece = rest.split_to(size);
        frames.push(Frame::data(Header { more: 1, ..head }, piece));
    }
    frames.push(Frame::data(head, rest));
    frames
}

/// An operator's answer in the form that the login asked for.
pub fn render(reply: &OpReply, format: Format) -> Vec<u8> {
    match format {
        Format::Text => reply.text().into_bytes(),
        Format::Screen(columns) => reply.screen(columns).into_bytes(),
        Format::Json => json::render(reply),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::op::reply::Block;

    /// The `more` and the size of each frame of an answer.
    fn sizes(head: Header, text: &str, body_max: usize) -> Vec<(u16, usize)> {
        let reply = OpReply::block(Block::Text { name: "script", text: text.to_owned() });
        let mut whole = String::new();
        let mut sizes = Vec::new();
        for frame in answer(head, &reply, Format::Text, body_max) {
            let Frame::Data { head, body } = frame else { panic!("{frame:?}") };
            assert_eq!(head.sequence, 7);
            whole += std::str::from_utf8(&body).expect("text");
            sizes.push((head.more, body.len()));
        }
        assert_eq!(whole, reply.text());
        sizes
    }

    #[test]
    fn a_long_answer_is_cut_at_the_limit_and_no_frame_is_empty() {
        let head = Header { sequence: 7, ..Header::default() };
        let text = |bytes: usize| "x".repeat(bytes - 1);
        assert_eq!(sizes(head, &text(1024), 1024), [(0, 1024)]);
        assert_eq!(sizes(head, &text(1025), 1024), [(1, 1024), (0, 1)]);
        assert_eq!(sizes(head, &text(2048), 1024), [(1, 1024), (0, 1024)]);
        let piece = 65_536;
        assert_eq!(sizes(head, &text(150_000), usize::MAX), [(1, piece), (1, piece), (0, 18_928)]);
        let watch = Header { more: 1, ..head };
        assert_eq!(sizes(watch, &text(1025), 1024), [(1, 1025)]);
    }
}
