//! A header and a body → frame. No input panics. `frame_reader` finds them in a stream; whether a
//! frame may come at this moment is decided by the session and the broker.

use crate::bodies::ErrorBody;
use crate::errors::ErrorCode;
use crate::frame::Frame;
use crate::header::{FLAGS, Header};
use crate::kinds::{BodyKind, Kind};
use crate::limits::{
    BODY_BYTES_MAX, CONTROL_BODY_BYTES_MAX, DEADLINE_MS_MAX, HEADER_BYTES, VERSION,
};
use crate::lines::BodyError;
use bytes::Bytes;
use std::fmt;

/// Why bytes from the wire are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireError {
    /// The error to answer with.
    pub code: ErrorCode,
    /// What is wrong, in which field, with the limit and the value.
    pub text: String,
    /// The sequence of the frame; 0 where it can't be read.
    pub sequence: u32,
    /// Bytes of body to skip before the next frame, where a single data frame is refused; `None` =
    /// the stream can't be trusted any more and must be closed.
    pub skip: Option<u32>,
    /// With `skip`: whether further frames of the same request follow.
    pub more: bool,
    /// With `skip`: whether the sender waits for a reply.
    pub reply: bool,
    /// With `skip`: whether it is a published message. Its sender is told whatever `reply` says.
    pub is_publish: bool,
}

impl WireError {
    /// An error after which the stream can't be trusted any more.
    pub fn fatal(code: ErrorCode, text: impl Into<String>, sequence: u32) -> Self {
        Self {
            code,
            text: text.into(),
            sequence,
            skip: None,
            more: false,
            reply: false,
            is_publish: false,
        }
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.text)
    }
}

impl std::error::Error for WireError {}

/// How a TLS connection begins: a handshake record of version 3 (RFC 8446, section 5.1). Read as
/// the length of a frame it would be 350 MiB.
const TLS_HELLO: u32 = 0x1603;

/// Largest body of a connection that is not logged in, in bytes.
const PRE_LOGIN_BYTES_MAX: u32 = 64 * 1024;

/// What a reader accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes in the body of a data frame.
    pub body_bytes_max: usize,
    /// Longest deadline, in milliseconds.
    pub deadline_ms_max: u64,
    /// The sender may be anybody, so that no large frame may come.
    pub is_pre_login: bool,
    /// The sender is a broker, which may be newer and have errors that the table does not have.
    pub is_broker: bool,
}

impl Limits {
    /// The limits of a broker for a peer that is logged in.
    pub const fn new(body_bytes_max: usize) -> Self {
        Self {
            body_bytes_max,
            deadline_ms_max: DEADLINE_MS_MAX,
            is_pre_login: false,
            is_broker: false,
        }
    }

    /// The limits for a broker. Any deadline is accepted, because a broker may have other limits
    /// than this library knows, and the deadline of a reply means nothing.
    pub const fn from_broker(body_bytes_max: usize) -> Self {
        Self { deadline_ms_max: u32::MAX as u64, is_broker: true, ..Self::new(body_bytes_max) }
    }
}

impl Default for Limits {
    /// The widest that a broker may have.
    fn default() -> Self {
        Self::new(BODY_BYTES_MAX)
    }
}

/// Reads and checks a header.
///
/// # Errors
/// The version, kind, flags or length is not valid. Only two errors leave the stream usable
/// (`skip`): a data frame with a body that is too large, or with `reply`, `more` or `deadline_ms`
/// out of range.
#[inline]
pub fn head(bytes: &[u8; HEADER_BYTES], limits: Limits) -> Result<(Kind, Header), WireError> {
    let Limits { body_bytes_max, deadline_ms_max, is_pre_login, .. } = limits;
    let header = Header::read(bytes);
    let fatal = |code, text: String| WireError::fatal(code, text, header.sequence);
    if header.len >> 16 == TLS_HELLO {
        return Err(WireError::fatal(
            ErrorCode::Tls,
            "a TLS connection was begun at a port that speaks no TLS; leave out 'tls://', or name \
             the port that has it",
            0,
        ));
    }
    if header.version != VERSION {
        return Err(fatal(
            ErrorCode::Version,
            format!("version {} is not spoken here; spoken is {VERSION}", header.version),
        ));
    }
    let Some(kind) = Kind::of(header.command) else {
        return Err(fatal(
            ErrorCode::BadFrame,
            format!("command {} is no kind of frame", header.command),
        ));
    };
    let size = header.len as usize;
    match kind.row().body {
        BodyKind::Opaque => {
            if size > body_bytes_max {
                let text = format!("frame of {size} bytes exceeds body_bytes_max {body_bytes_max}");
                // The broker alone sends messages, and waits for no answer that could say so.
                return Err(if kind == Kind::Message {
                    fatal(ErrorCode::BodyTooLarge, text)
                } else {
                    unusable(&header, ErrorCode::BodyTooLarge, text)
                });
            }
            if (header.reply | header.more) > 1 || u64::from(header.deadline_ms) > deadline_ms_max {
                return Err(unusable(&header, ErrorCode::OutOfRange, out_of_range(&header)));
            }
        }
        BodyKind::Lines | BodyKind::Text => {
            if size > CONTROL_BODY_BYTES_MAX {
                return Err(fatal(
                    ErrorCode::BodyTooLarge,
                    format!(
                        "{kind} frame of {size} bytes exceeds the {CONTROL_BODY_BYTES_MAX} of a control frame"
                    ),
                ));
            }
        }
        BodyKind::Empty => {
            if size != 0 {
                return Err(fatal(
                    ErrorCode::BadFrame,
                    format!("{kind} frame has a body of {size} bytes; it must have none"),
                ));
            }
        }
    }
    if header.flags & !FLAGS != 0 {
        return Err(fatal(
            ErrorCode::BadFrame,
            format!("flags {:#04x} has bits set that must be zero", header.flags),
        ));
    }
    if is_pre_login && header.len > PRE_LOGIN_BYTES_MAX {
        let text =
            format!("{kind} frame of {size} bytes before login exceeds {PRE_LOGIN_BYTES_MAX}");
        return Err(fatal(ErrorCode::BadState, text));
    }
    Ok((kind, header))
}

/// The error for a data frame that is refused while the next one can be read.
#[cold]
fn unusable(header: &Header, code: ErrorCode, text: String) -> WireError {
    WireError {
        code,
        text,
        sequence: header.sequence,
        skip: Some(header.len),
        more: header.more != 0,
        reply: header.reply != 0,
        is_publish: header.command == Kind::Publish.number(),
    }
}

/// Says which field of a data frame is out of range, and which range it has.
#[cold]
fn out_of_range(header: &Header) -> String {
    let fields = [
        ("reply", u64::from(header.reply), 1),
        ("more", u64::from(header.more), 1),
        ("deadline_ms", u64::from(header.deadline_ms), DEADLINE_MS_MAX),
    ];
    let bad = fields.iter().find(|(_, value, max)| value > max);
    let (name, value, max) = bad.unwrap_or(&fields[0]);
    format!("{name} is {value}; it is 0 to {max}")
}

/// Makes a frame from a header that [`head`] accepted and its whole body.
///
/// # Errors
/// The body of a control frame can't be read.
#[inline]
pub fn frame(kind: Kind, header: Header, body: Bytes) -> Result<Frame, WireError> {
    if kind == Kind::Data {
        return Ok(Frame::Data { head: header, body });
    }
    other_frame(kind, header, body)
}

/// As [`frame`], of a broker: it may be newer, so an error that the table does not have is read as
/// far as its body says what it is.
///
/// # Errors
/// As [`frame`].
pub fn frame_of_broker(kind: Kind, header: Header, body: Bytes) -> Result<Frame, WireError> {
    if kind == Kind::Error && header.error < 0 && ErrorCode::of(header.error).is_none() {
        return match ErrorBody::of_newer(header.error, &body) {
            Ok(error) => Ok(Frame::Error { head: header, error }),
            Err(BodyError(text)) => {
                let text = format!("{kind} frame: {text}");
                Err(WireError::fatal(ErrorCode::BadFrame, text, header.sequence))
            }
        };
    }
    frame(kind, header, body)
}

fn other_frame(kind: Kind, header: Header, body: Bytes) -> Result<Frame, WireError> {
    match kind {
        Kind::Publish => return Ok(Frame::Publish { head: header, body }),
        Kind::Message => return Ok(Frame::Message { head: header, body }),
        _ => {}
    }
    Frame::read(kind, header, &body).map_err(|BodyError(text)| {
        let code = match kind {
            Kind::Login | Kind::WorkerLogin | Kind::Proof => ErrorCode::BadLogin,
            _ => ErrorCode::BadFrame,
        };
        WireError::fatal(code, format!("{kind} frame: {text}"), header.sequence)
    })
}
