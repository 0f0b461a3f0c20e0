//! Fuzzes the decoder of a byte stream and the bodies of control frames. Laws: decoding never
//! panics; the frames do not depend on where the stream is split; a decoded frame can be encoded
//! and decoded again.

use super::source::Source;
use super::streams::{at_once, by_push};
use protocol::decode::{self, Limits};
use protocol::encode;
use protocol::frame::Frame;
use protocol::frame_reader::Inbox;
use protocol::header::Header;
use protocol::kinds::{KINDS, Kind};
use protocol::limits::{CONTROL_BODY_BYTES_MAX, HEADER_BYTES};
use protocol::show;

/// A stream of bytes, split as the first bytes say.
pub fn decoder(data: &[u8]) {
    let mut source = Source::new(data);
    let limits = Limits::new(usize::from(source.byte()) * 8);
    let sizes: Vec<usize> = source.bytes(16, 1).iter().map(|size| usize::from(*size)).collect();
    let stream = source.rest();
    let whole = at_once(stream, limits);
    assert_eq!(by_push(stream, &sizes, limits), whole, "split by {sizes:?}");
    for frame in whole.iter().flatten() {
        again(frame.clone());
    }
}

/// A frame that was read is shown, written and read again.
fn again(frame: Frame) {
    let bytes = encode::to_bytes(frame.clone());
    let mut inbox = Inbox::of(Limits::new(bytes.len()), &bytes);
    match inbox.next_frame() {
        Ok(Some(read)) => assert_eq!(strip(read), strip(frame)),
        other => panic!("{frame:?} is written and not read: {other:?}"),
    }
    assert!(!inbox.has_bytes(), "{} bytes more than the frame", inbox.bytes_count());
    let head = bytes.first_chunk::<HEADER_BYTES>().expect("a header");
    let header = Header::read(head);
    assert_eq!(header.write(), *head);
    assert!(!show::line(&header, &bytes[HEADER_BYTES..]).contains('\n'), "one line");
    assert!(!show::hex(&bytes).is_empty());
}

/// The header of a frame that keeps its own, without what the encoder sets.
fn strip(frame: Frame) -> Frame {
    match frame {
        Frame::Error { head, error } => {
            Frame::Error { head: Header { len: 0, error: error.code.number(), ..head }, error }
        }
        Frame::Cancel { head, text } => Frame::Cancel { head: Header { len: 0, ..head }, text },
        Frame::Publish { head, body } => Frame::Publish { head: Header { len: 0, ..head }, body },
        Frame::Message { head, body } => Frame::Message { head: Header { len: 0, ..head }, body },
        other => other,
    }
}

/// The body of a control frame: the first byte says of which kind.
pub fn bodies(data: &[u8]) {
    let mut source = Source::new(data);
    let controls: Vec<Kind> =
        KINDS.iter().map(|row| row.kind).filter(|kind| *kind != Kind::Data).collect();
    let kind = source.pick(&controls);
    let error = if kind == Kind::Error { -i16::from(source.byte()) } else { 0 };
    let body = source.rest();
    if body.len() > CONTROL_BODY_BYTES_MAX {
        return;
    }
    let head = Header { command: kind.number(), error, ..Header::default() };
    if let Ok(frame) = decode::frame(kind, head, bytes::Bytes::copy_from_slice(body)) {
        assert_eq!(frame.kind(), kind);
        again(frame);
    }
}
