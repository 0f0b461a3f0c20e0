//! Bytes of a stream: the decoder, the three readers that cut a stream into frames, the bodies of
//! control frames. Laws: never a panic; however the stream is cut, the same frames come out; what
//! was read can be written and read again.

use super::source::Source;
use bytes::{Buf, BytesMut};
use protocol::decode::{self, WireError};
use protocol::encode;
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::kinds::{KINDS, Kind};
use protocol::limits::{CONTROL_BODY_BYTES_MAX, HEADER_BYTES};
use protocol::show;

/// What a stream gave: frames, and errors that leave it usable; a fatal one is the last.
type Taken = Vec<Result<Frame, WireError>>;

/// A stream of bytes, cut as the first bytes say, into each reader.
pub fn decoder(data: &[u8]) {
    let mut source = Source::new(data);
    let body_bytes_max = usize::from(source.byte()) * 8;
    let mut cuts = source.bytes(16, 1).to_vec();
    cuts.push(0);
    let stream = source.rest();
    let whole = by_next(stream, &[0], body_bytes_max);
    assert_eq!(by_next(stream, &cuts, body_bytes_max), whole, "cut by {cuts:?}");
    for frame in whole.iter().flatten() {
        again(frame.clone());
    }
}

/// Takes all frames of a stream with `decode::next`, given in pieces of these sizes, round and
/// round; 0 = all that is left.
fn by_next(mut stream: &[u8], cuts: &[u8], body_bytes_max: usize) -> Taken {
    let mut buffer = BytesMut::new();
    let (mut taken, mut skip) = (Taken::new(), 0);
    for cut in cuts.iter().cycle() {
        let size = if *cut == 0 { stream.len() } else { stream.len().min(usize::from(*cut)) };
        buffer.extend_from_slice(&stream[..size]);
        stream = &stream[size..];
        loop {
            let passed = skip.min(buffer.len());
            buffer.advance(passed);
            skip -= passed;
            if skip > 0 {
                break;
            }
            match decode::next(&mut buffer, body_bytes_max) {
                Ok(None) => break,
                Ok(Some(frame)) => taken.push(Ok(frame)),
                Err(error) => {
                    let more = error.skip;
                    taken.push(Err(error));
                    match more {
                        Some(count) => skip = count as usize,
                        None => return taken,
                    }
                }
            }
        }
        if stream.is_empty() {
            return taken;
        }
    }
    taken
}

/// A frame that was read is shown, written and read again.
fn again(frame: Frame) {
    let bytes = encode::to_bytes(frame.clone());
    let mut buffer = BytesMut::from(&bytes[..]);
    let body_bytes_max = bytes.len();
    match decode::next(&mut buffer, body_bytes_max) {
        Ok(Some(read)) => assert_eq!(strip(read), strip(frame)),
        other => panic!("{frame:?} is written and not read: {other:?}"),
    }
    assert!(buffer.is_empty(), "{} bytes more than the frame", buffer.len());
    let head = bytes.first_chunk::<HEADER_BYTES>().expect("a header");
    let header = Header::read(head);
    assert_eq!(header.write(), *head);
    assert!(!show::line(&header, &bytes[HEADER_BYTES..]).contains('\n'), "one line");
    assert!(!show::hex(&bytes).is_empty());
}

/// An error frame's header without what the encoder sets.
fn strip(frame: Frame) -> Frame {
    match frame {
        Frame::Error { head, error } => {
            Frame::Error { head: Header { len: 0, error: error.code.number(), ..head }, error }
        }
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
