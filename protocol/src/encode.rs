//! Frame → bytes. Encoding never fails, because a frame that can't be written can't be built as a
//! [`Frame`].

use crate::bodies::ErrorBody;
use crate::errors::Whose;
use crate::frame::Frame;
use crate::header::Header;
use crate::kinds::{BodyKind, Kind};
use crate::limits::{CONTROL_BODY_BYTES_MAX, VERSION};
use bytes::{Bytes, BytesMut};

/// A frame ready to be written. Large bodies are passed on by reference.
#[derive(Clone, Debug)]
pub struct EncodedFrame {
    /// The 64 bytes of the header.
    pub head: [u8; crate::limits::HEADER_BYTES],
    /// The body; `len` in the header is its size.
    pub body: Bytes,
}

/// An error frame for a receiver of this side; see [`ErrorBody::render_to`].
pub fn error_to(head: Header, error: &ErrorBody, receiver: Whose) -> EncodedFrame {
    let body = error.render_to(receiver);
    let error = error.code.number();
    let command = Kind::Error.number();
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let head = Header { error, command, len, version: VERSION, ..head };
    EncodedFrame { head: head.write(), body }
}

/// Encodes the frame as header and body.
///
/// The header's `len` can't describe a body of 4 GiB or more. The limits of the callers
/// (`body_bytes_max`) are far below that; a longer body is cut here rather than described wrongly.
#[inline]
pub fn encode(frame: Frame) -> EncodedFrame {
    // Those that come by the thousand, past all that the others need.
    match frame {
        Frame::Data { head, body } => encoded(Kind::Data, head, body),
        Frame::Message { head, body } => encoded(Kind::Message, head, body),
        frame => encode_other(frame),
    }
}

fn encode_other(frame: Frame) -> EncodedFrame {
    let kind = frame.kind();
    let (head, body) = frame.write();
    if kind.row().body != BodyKind::Opaque {
        debug_assert!(body.len() <= CONTROL_BODY_BYTES_MAX, "{kind} body of {} bytes", body.len());
    }
    encoded(kind, head, body)
}

#[inline]
fn encoded(kind: Kind, mut head: Header, mut body: Bytes) -> EncodedFrame {
    head.len = u32::try_from(body.len()).unwrap_or_else(|_| {
        body.truncate(u32::MAX as usize);
        u32::MAX
    });
    head.command = kind.number();
    head.version = VERSION;
    EncodedFrame { head: head.write(), body }
}

/// Appends the frame to a buffer.
pub fn append(frame: Frame, out: &mut BytesMut) {
    let EncodedFrame { head, body } = encode(frame);
    out.reserve(head.len() + body.len());
    out.extend_from_slice(&head);
    out.extend_from_slice(&body);
}

/// The frame as one buffer.
pub fn to_bytes(frame: Frame) -> Bytes {
    let mut out = BytesMut::new();
    append(frame, &mut out);
    out.freeze()
}
