//! The form of control bodies: `key value` lines, then, after an empty line, free text. The form is
//! readable in a packet capture, easy to write in any language, and open to additions, because
//! unknown keys are ignored. `bodies` knows the meaning of the keys.

use crate::limits::{LINES_MAX, VALUE_BYTES_MAX};
use crate::show;
use bytes::Bytes;
use std::fmt::{self, Write as _};

/// Most bytes of a key or a wrong value that an error shows.
const SHOWN_MAX: usize = 40;

/// Why a control body can't be read, as text for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyError(pub String);

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BodyError {}

/// A parsed control body: its lines in order, and the free text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    /// Keys and values, one behind the other: a body with thousands of lines takes no more pieces
    /// of memory than one with two.
    words: String,
    /// Where in `words` the key and the value of each line end.
    ends: Vec<(u32, u32)>,
    text: String,
}

impl Lines {
    /// Parses a body.
    ///
    /// # Errors
    /// The body is not UTF-8, has too many lines, or a value that is too long or wrongly escaped.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let body = std::str::from_utf8(body)
            .map_err(|e| BodyError(format!("byte {} of the body is not UTF-8", e.valid_up_to())))?;
        let mut lines = Self { words: String::with_capacity(body.len()), ..Self::default() };
        let mut rest = body;
        while !rest.is_empty() {
            let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
            rest = after;
            if line.is_empty() {
                rest.clone_into(&mut lines.text);
                break;
            }
            if lines.ends.len() == LINES_MAX {
                return Err(BodyError(format!("the body has more than {LINES_MAX} lines")));
            }
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            if value.len() > VALUE_BYTES_MAX {
                return Err(BodyError(format!(
                    "the value of '{}' has {} bytes; at most {VALUE_BYTES_MAX} are allowed",
                    show::brief(key, SHOWN_MAX),
                    value.len()
                )));
            }
            lines.words.push_str(key);
            let key_end = lines.words.len();
            unescape(key, value, &mut lines.words)?;
            lines.end(key_end);
        }
        Ok(lines)
    }

    /// A line is whole. Its body is no longer than a frame may be.
    fn end(&mut self, key_end: usize) {
        self.ends.push((key_end as u32, self.words.len() as u32));
    }

    /// All keys and values, in order.
    fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut start = 0;
        self.ends.iter().map(move |&(key_end, end)| {
            let (key_end, end) = (key_end as usize, end as usize);
            let line = (&self.words[start..key_end], &self.words[key_end..end]);
            start = end;
            line
        })
    }

    /// Adds one line `key value`; the value is escaped when the body is rendered.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl fmt::Display) -> Self {
        self.words.push_str(key);
        let key_end = self.words.len();
        // Writing to a String can't fail.
        let _ = write!(self.words, "{value}");
        self.end(key_end);
        self
    }

    /// Adds one line with this key for each value.
    #[must_use]
    pub fn with_each<T: fmt::Display>(
        mut self,
        key: &str,
        values: impl IntoIterator<Item = T>,
    ) -> Self {
        for value in values {
            self = self.with(key, value);
        }
        self
    }

    /// Sets the free text.
    #[must_use]
    pub fn with_text(mut self, text: impl Into<String>) -> Self {
        self.text = text.into();
        self
    }

    /// The free text after the empty line; empty if there is none.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The first value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(k, _)| *k == key).map(|(_, v)| v)
    }

    /// All values of a key, in order.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.iter().filter(move |(k, _)| *k == key).map(|(_, v)| v)
    }

    /// The first value of a required key.
    ///
    /// # Errors
    /// Names the key that is missing.
    pub fn need(&self, key: &str) -> Result<&str, BodyError> {
        self.get(key).ok_or_else(|| BodyError(format!("the line '{key} …' is missing")))
    }

    /// Renders the body; [`parse`](Self::parse) reads it back.
    pub fn render(&self) -> Bytes {
        let mut out = String::new();
        for (key, value) in self.iter() {
            out.push_str(key);
            out.push(' ');
            escape(value, &mut out);
            out.push('\n');
        }
        if !self.text.is_empty() {
            out.push('\n');
            out.push_str(&self.text);
        }
        Bytes::from(out)
    }
}

/// Reads the value of a key as a number.
pub(crate) fn number<T: std::str::FromStr>(key: &str, value: &str) -> Result<T, BodyError> {
    value.parse().map_err(|_| {
        let shown = show::brief(value, SHOWN_MAX);
        BodyError(format!("'{key} {shown}' is not a number in range"))
    })
}

fn escape(value: &str, out: &mut String) {
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

/// Appends the value of a key.
fn unescape(key: &str, value: &str, out: &mut String) -> Result<(), BodyError> {
    if !value.contains('\\') {
        out.push_str(value);
        return Ok(());
    }
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('\\') => out.push('\\'),
            Some('n') => out.push('\n'),
            _ => {
                return Err(BodyError(format!(
                    "in the value of '{}' a backslash is followed by neither '\\' nor 'n'",
                    show::brief(key, SHOWN_MAX)
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_rendered_is_read_back() {
        let lines = Lines::default()
            .with("service", "echo")
            .with("arg", "two words \\ and\na line")
            .with("empty", "")
            .with_text("free\n\ntext");
        assert_eq!(Lines::parse(&lines.render()), Ok(lines));
    }

    #[test]
    fn bad_bodies_say_why() {
        let why = |body: &[u8]| Lines::parse(body).unwrap_err().0;
        assert!(why(b"service \xff").contains("byte 8"));
        assert!(why(b"a \\x\n").contains("backslash"));
        assert!(why(&b"k v\n".repeat(LINES_MAX + 1)).contains("lines"));
        let long = format!("k {}", "v".repeat(VALUE_BYTES_MAX + 1));
        assert!(why(long.as_bytes()).contains("8193 bytes"));
        assert!(Lines::parse(&b"k v\n".repeat(LINES_MAX)).is_ok());
        let lines = Lines::parse(b"n x7").unwrap();
        assert!(number::<u32>("n", lines.need("n").unwrap()).unwrap_err().0.contains("'n x7'"));
        assert!(lines.need("m").unwrap_err().0.contains("'m …' is missing"));
    }
}
