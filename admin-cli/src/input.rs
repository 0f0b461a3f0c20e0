//! Splits standard input into messages. A line `go` ends a message; the lines after the last `go`
//! are a message, too. Memory is bounded by a limit.

use crate::status::Failure;
use bytes::Bytes;
use std::io::{self, BufRead};

/// The line that ends a message.
const GO: &[u8] = b"go";

/// The bytes before a line `go`, or before the end of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The lines with their line breaks, as they came.
    pub body: Bytes,
    /// Whether a line `go` ended it; if not, the input ended.
    pub is_sent: bool,
}

impl Message {
    /// Whether it has only white space.
    pub fn is_blank(&self) -> bool {
        self.body.iter().all(u8::is_ascii_whitespace)
    }
}

/// Reads messages from an input.
pub struct Messages<'a> {
    input: &'a mut dyn BufRead,
    bytes_max: usize,
    is_over: bool,
}

impl<'a> Messages<'a> {
    /// Reads messages of at most `bytes_max` bytes.
    pub fn new(input: &'a mut dyn BufRead, bytes_max: usize) -> Self {
        Self { input, bytes_max, is_over: false }
    }

    /// Reads the next message; `None` = the input has ended. The last one, without a `go`, may be
    /// empty.
    ///
    /// # Errors
    /// The input can't be read, or the message is larger than `bytes_max`.
    pub fn read(&mut self) -> Result<Option<Message>, Failure> {
        if self.is_over {
            return Ok(None);
        }
        let mut body = Vec::new();
        loop {
            let begin = body.len();
            // One byte more than the limit shows that a message is too long.
            let room = (self.bytes_max + GO.len() + 2 - begin) as u64;
            let size = io::Read::take(&mut *self.input, room)
                .read_until(b'\n', &mut body)
                .map_err(Failure::Input)?;
            let line = body[begin..].strip_suffix(b"\n").unwrap_or_else(|| &body[begin..]);
            if line == GO {
                body.truncate(begin);
                return Ok(Some(Message { body: body.into(), is_sent: true }));
            }
            if body.len() > self.bytes_max {
                return Err(Failure::Usage(format!(
                    "a message on standard input has more than the {} bytes that a request may \
                     have; send it in pieces with -k and 'go'",
                    self.bytes_max
                )));
            }
            if size == 0 {
                self.is_over = true;
                return Ok(Some(Message { body: body.into(), is_sent: false }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &str, bytes_max: usize) -> Result<Vec<(String, bool)>, Failure> {
        let mut input = input.as_bytes();
        let mut messages = Messages::new(&mut input, bytes_max);
        let mut all = Vec::new();
        while let Some(message) = messages.read()? {
            all.push((String::from_utf8_lossy(&message.body).into_owned(), message.is_sent));
        }
        Ok(all)
    }

    #[test]
    fn go_alone_on_a_line_ends_a_message() {
        let sent = |text: &str| (text.to_owned(), true);
        let rest = |text: &str| (text.to_owned(), false);
        for (input, messages) in [
            ("", vec![rest("")]),
            ("a", vec![rest("a")]),
            ("a\nb\ngo\nc\ngo\n", vec![sent("a\nb\n"), sent("c\n"), rest("")]),
            ("a\ngo", vec![sent("a\n"), rest("")]),
            ("go\ngo\nx", vec![sent(""), sent(""), rest("x")]),
            ("go \n go\ngogo\nGO\n", vec![rest("go \n go\ngogo\nGO\n")]),
            ("go\r\n", vec![rest("go\r\n")]),
            ("a\0b\ngo\n\n", vec![sent("a\0b\n"), rest("\n")]),
        ] {
            assert_eq!(read(input, 100).unwrap(), messages, "{input:?}");
        }
    }

    #[test]
    fn a_message_at_the_limit_is_taken_and_one_over_is_not() {
        assert_eq!(read("12345678\n\ngo\n", 10).unwrap()[0].0.len(), 10);
        assert_eq!(read("1234567890", 10).unwrap()[0].0.len(), 10);
        for input in ["12345678901", "12345\n67890\ngo\n", &"x".repeat(1 << 20)] {
            let error = read(input, 10).unwrap_err();
            assert!(matches!(&error, Failure::Usage(text) if text.contains("the 10 bytes")));
        }
    }
}
