//! The body of a published message: lines about it, an empty line, the payload; and the numbers by
//! which a subscriber goes on after a pause.

use crate::keys::{forms, is_not};
use crate::lines::BodyError;
use crate::show;
use crate::topics::check_topic;
use bytes::{BufMut, Bytes, BytesMut};
use std::fmt;

/// Most bytes of the lines in front of the payload.
pub const MESSAGE_LINES_BYTES_MAX: usize = 4096;

/// The longest time for which a value is kept, in milliseconds: ten years.
pub const EXPIRES_MS_MAX: u64 = 10 * 366 * 24 * 3_600_000;

/// A message in the count of a broker, from one start of it to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The start of the broker: each has another number, a later one a higher one.
    pub epoch: u64,
    /// The number of the message; 0 = before the first.
    pub number: u64,
}

impl Position {
    /// Reads `EPOCH:NUMBER`.
    pub fn read(word: &str) -> Option<Self> {
        let (epoch, number) = word.split_once(':')?;
        Some(Self { epoch: epoch.parse().ok()?, number: number.parse().ok()? })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.number)
    }
}

/// Messages that can't be sent any more to a subscriber that goes on after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Those from the first to the last number, as far as they matched.
    Numbers(u64, u64),
    /// All: the broker was started since.
    Epoch,
}

impl Missing {
    fn read(word: &str) -> Option<Self> {
        if word == "epoch" {
            return Some(Self::Epoch);
        }
        let (first, last) = word.split_once(' ')?;
        Some(Self::Numbers(first.parse().ok()?, last.parse().ok()?))
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Numbers(first, last) => write!(f, "{first} {last}"),
            Self::Epoch => f.write_str("epoch"),
        }
    }
}

forms! {
    crate::keys::Word, Position, "`EPOCH:NUMBER`",
        |key, word| Position::read(word)
            .ok_or_else(|| is_not(key, word, "not two numbers with a colon between them")),
        |value| value;
    crate::keys::Word, Missing, "`FIRST LAST` or `epoch`",
        |key, word| Missing::read(word)
            .ok_or_else(|| is_not(key, word, "neither two numbers nor 'epoch'")),
        |value| value;
}

/// Whether a message is kept as the value of its topic: the line `retain`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retain {
    /// It is not.
    #[default]
    No,
    /// Until another one replaces it, it is removed, or the broker ends: `yes`.
    Yes,
    /// And at most as long as the connection of its publisher: `connected`.
    Connected,
}

impl Retain {
    /// The word of the line; empty where there is none.
    pub const fn word(self) -> &'static str {
        match self {
            Self::No => "",
            Self::Yes => "yes",
            Self::Connected => "connected",
        }
    }
}

/// Why the value of a topic is kept no longer: the line `removed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A publisher removed it.
    Deleted,
    /// Its time (`expires_ms`) was over.
    Expired,
    /// It had to make room, because a limit was lowered.
    Evicted,
    /// The connection of its publisher ended.
    OwnerGone,
}

impl Removed {
    /// The word of the line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Expired => "expired",
            Self::Evicted => "evicted",
            Self::OwnerGone => "owner_gone",
        }
    }

    /// Reads the word of the line.
    pub fn of(word: &str) -> Option<Self> {
        let all = [Self::Deleted, Self::Expired, Self::Evicted, Self::OwnerGone];
        all.into_iter().find(|removed| removed.word() == word)
    }
}

/// The lines of a message that isect knows, and where its payload begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageLines<'a> {
    /// The line `topic`; valid by the rules of topics.
    pub topic: &'a str,
    /// The line `retain`.
    pub retain: Retain,
    /// The line `expires_ms`: how long the value is kept, with `retain`.
    pub expires_ms: Option<u64>,
    /// The line `removed`: the value of the topic is kept no longer. The payload is empty then.
    pub removed: Option<Removed>,
    /// Bytes in front of the payload.
    pub payload_at: usize,
}

impl<'a> MessageLines<'a> {
    /// Reads the lines of a body. Those that it does not know are passed over.
    ///
    /// # Errors
    /// The topic is missing or not valid, a value is wrong, or the lines have no end.
    pub fn read(body: &'a [u8]) -> Result<Self, BodyError> {
        let mut message =
            Self { topic: "", retain: Retain::No, expires_ms: None, removed: None, payload_at: 0 };
        let mut has_topic = false;
        let mut at = 0;
        loop {
            let window = &body[at..body.len().min(MESSAGE_LINES_BYTES_MAX)];
            let Some(size) = window.iter().position(|byte| *byte == b'\n') else {
                return Err(no_end(body.len()));
            };
            let line = &window[..size];
            at += size + 1;
            if line.is_empty() {
                break;
            }
            let line = std::str::from_utf8(line)
                .map_err(|_| BodyError("a line in front of the payload is not UTF-8".into()))?;
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            match key {
                "topic" if !has_topic => {
                    check_topic(value).map_err(BodyError)?;
                    message.topic = value;
                    has_topic = true;
                }
                "retain" => {
                    message.retain = match value {
                        "yes" => Retain::Yes,
                        "connected" => Retain::Connected,
                        "no" => Retain::No,
                        other => {
                            let meant = "none of 'yes', 'connected' and 'no'";
                            return Err(is_not(key, other, meant));
                        }
                    };
                }
                "expires_ms" => {
                    let number = value.parse().ok().filter(|ms| (1..=EXPIRES_MS_MAX).contains(ms));
                    let meant = || format!("not a number of milliseconds, 1 to {EXPIRES_MS_MAX}");
                    message.expires_ms = Some(number.ok_or_else(|| is_not(key, value, &meant()))?);
                }
                "removed" => {
                    let meant = "none of 'deleted', 'expired', 'evicted' and 'owner_gone'";
                    let removed = Removed::of(value).ok_or_else(|| is_not(key, value, meant))?;
                    message.removed = Some(removed);
                }
                _ => {}
            }
        }
        if !has_topic {
            return Err(BodyError("the line 'topic …' is missing".into()));
        }
        message.payload_at = at;
        message.agree(body)?;
        Ok(message)
    }

    /// Lines that contradict each other.
    fn agree(&self, body: &[u8]) -> Result<(), BodyError> {
        if self.removed.is_some() {
            if self.retain != Retain::No || self.expires_ms.is_some() {
                let text = "'removed' stands beside 'retain' or 'expires_ms'; leave those out";
                return Err(BodyError(text.into()));
            }
            if body.len() > self.payload_at {
                let size = body.len() - self.payload_at;
                let text = format!("a message with 'removed' has a payload of {size} bytes");
                return Err(BodyError(text + "; it must have none"));
            }
        }
        if self.expires_ms.is_some() && self.retain == Retain::No {
            return Err(BodyError(
                "'expires_ms' stands without 'retain'; it says how long a value is kept".into(),
            ));
        }
        Ok(())
    }
}

fn no_end(size: usize) -> BodyError {
    BodyError(if size >= MESSAGE_LINES_BYTES_MAX {
        format!(
            "the lines in front of the payload have no empty line after them within \
             {MESSAGE_LINES_BYTES_MAX} bytes"
        )
    } else {
        "the empty line between the lines and the payload is missing".into()
    })
}

/// What a message says of itself, to make its body; [`MessageLines`] reads it.
#[derive(Clone, Copy, Debug)]
pub struct MessageOf<'a> {
    /// The topic.
    pub topic: &'a str,
    /// Whether it is kept.
    pub retain: Retain,
    /// How long, if not for ever.
    pub expires_ms: Option<u64>,
    /// The value is kept no longer.
    pub removed: Option<Removed>,
    /// Further lines, key and value; neither has a line end.
    pub lines: &'a [(&'a str, &'a str)],
    /// The payload.
    pub payload: &'a [u8],
}

impl<'a> MessageOf<'a> {
    /// A message that is not kept.
    pub const fn new(topic: &'a str, payload: &'a [u8]) -> Self {
        let (retain, expires_ms, removed) = (Retain::No, None, None);
        Self { topic, retain, expires_ms, removed, lines: &[], payload }
    }

    /// The body of the frame.
    pub fn body(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64 + self.topic.len() + self.payload.len());
        let mut line = |key: &str, value: &str| {
            out.put_slice(key.as_bytes());
            out.put_u8(b' ');
            out.put_slice(value.as_bytes());
            out.put_u8(b'\n');
        };
        line("topic", self.topic);
        if self.retain != Retain::No {
            line("retain", self.retain.word());
        }
        if let Some(ms) = self.expires_ms {
            line("expires_ms", &ms.to_string());
        }
        if let Some(removed) = self.removed {
            line("removed", removed.word());
        }
        for (key, value) in self.lines {
            line(key, &show::one_line((*value).to_owned()));
        }
        out.put_u8(b'\n');
        out.put_slice(self.payload);
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let message = MessageOf {
            retain: Retain::Yes,
            expires_ms: Some(5000),
            lines: &[("colour", "red")],
            ..MessageOf::new("orders.eu", b"\n\0bytes\n\n")
        };
        let body = message.body();
        let read = MessageLines::read(&body).unwrap();
        assert_eq!((read.topic, read.retain), ("orders.eu", Retain::Yes));
        assert_eq!((read.expires_ms, read.removed), (Some(5000), None));
        assert_eq!(&body[read.payload_at..], b"\n\0bytes\n\n");
        assert!(body.starts_with(b"topic orders.eu\nretain yes\nexpires_ms 5000\ncolour red\n\n"));
        let plain = MessageOf::new("a", b"").body();
        assert_eq!(&plain[..], b"topic a\n\n");
        assert_eq!(MessageLines::read(&plain).unwrap().payload_at, 9);
    }

    #[test]
    fn a_body_that_makes_no_sense_says_why() {
        let long = format!("topic a\nx {}\n\n", "y".repeat(5000));
        for (body, part) in [
            ("", "empty line"),
            ("topic a", "empty line"),
            ("topic a\n", "empty line"),
            ("\nhello", "'topic …' is missing"),
            ("colour red\n\n", "'topic …' is missing"),
            ("topic a..b\n\n", "word 2"),
            ("topic \n\n", "empty"),
            ("topic a.*\n\n", "wildcard"),
            ("topic a\nretain maybe\n\n", "'retain maybe'"),
            ("topic a\nretain yes\nexpires_ms 0\n\n", "'expires_ms 0'"),
            ("topic a\nretain yes\nexpires_ms x\n\n", "'expires_ms x'"),
            ("topic a\nexpires_ms 5\n\n", "without 'retain'"),
            ("topic a\nremoved gone\n\n", "'removed gone'"),
            ("topic a\nremoved deleted\n\nx", "payload of 1 bytes"),
            ("topic a\nremoved deleted\nretain yes\n\n", "beside 'retain'"),
            (&long, "4096 bytes"),
        ] {
            let error = MessageLines::read(body.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(part), "{body:?}: {error}");
        }
        assert!(MessageLines::read(b"topic \xff\n\n").is_err());
    }
}
