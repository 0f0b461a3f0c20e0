//! The protocols of the peers, as pure readers and writers of bytes: the greeting, a request, and
//! how to parse what arrives. The load loop and the echo process drive all of them through the same
//! traits.

pub mod gearman;
pub mod isect;
pub mod limit;
pub mod nats;
pub mod redis;
pub mod topics;
pub mod zmtp;

use crate::payload::Payload;
use std::ops::Range;

/// What stands at the front of the bytes that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Not a whole message yet.
    Part,
    /// A message without consequence for the load; what had to be said is in the outbox.
    Passed {
        /// Bytes of the message, to be removed from the buffer.
        used: usize,
    },
    /// The connection is set up.
    Ready {
        /// Bytes of the message, to be removed from the buffer.
        used: usize,
    },
    /// A whole reply to a request.
    Reply {
        /// Bytes of the message, to be removed from the buffer.
        used: usize,
        /// The number of the request, where the protocol has a place for it.
        number: Option<u32>,
        /// Position of the payload in the buffer.
        body: Range<usize>,
    },
}

/// One end of a connection.
pub trait Protocol {
    /// What is said first; `true` = and nothing has to be waited for.
    fn hello(&mut self, out: &mut Vec<u8>) -> bool;

    /// What stands at the front of these bytes; answers go to `out`.
    ///
    /// # Errors
    /// It makes no sense, or says that something failed.
    fn parse(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Parsed, String>;
}

/// The end of a client.
pub trait ClientProtocol: Protocol {
    /// Appends a request.
    fn ask(&mut self, payload: Payload, out: &mut Vec<u8>);
}

/// The line of text at the front, without its CR LF, and the bytes it takes.
fn line(bytes: &[u8]) -> Result<Option<(&str, usize)>, String> {
    let Some(end) = bytes.iter().take(4096).position(|byte| *byte == b'\n') else {
        return if bytes.len() >= 4096 {
            Err("a line has more than 4096 bytes".into())
        } else {
            Ok(None)
        };
    };
    let text = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    let text = std::str::from_utf8(text).map_err(|_| "a line is not UTF-8".to_owned())?;
    Ok(Some((text, end + 1)))
}

/// A number in a line.
fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("'{}' is no number", text.escape_debug()))
}
