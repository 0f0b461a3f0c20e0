//! A frame for people: one line for logs and `isdclient -d`, hex for `last` and the documents. Any
//! bytes can be shown, also those that make no sense. Not a codec: nothing reads this back.

use crate::encode;
use crate::errors::ErrorCode;
use crate::frame::Frame;
use crate::header::Header;
use crate::kinds::Kind;
use std::fmt::Write as _;

/// Most bytes of a body that stand in one line.
const BODY_SHOWN_MAX: usize = 48;

/// One line about a header and (the beginning of) its body; fields that are zero are left out.
///
/// `request data seq=7 trans=12 worker=3 len=5 more "hello"` without its first word.
pub fn line(header: &Header, body: &[u8]) -> String {
    let mut out = Kind::of(header.command)
        .map_or_else(|| format!("kind?{}", header.command), |kind| kind.to_string());
    let mut add = |name: &str, value: u64| {
        if value != 0 {
            let _ = write!(out, " {name}={value}");
        }
    };
    add("seq", header.sequence.into());
    add("trans", header.transaction);
    add("worker", header.workerid.into());
    add("pri", header.priority.into());
    add("deadline_ms", header.deadline_ms.into());
    add("attempt", header.attempt.into());
    let _ = write!(out, " len={}", header.len);
    if header.error != 0 {
        let name = ErrorCode::of(header.error).map_or("application", ErrorCode::name);
        let _ = write!(out, " error={}({name})", header.error);
    }
    if header.version != crate::limits::VERSION {
        let _ = write!(out, " version={}", header.version);
    }
    for (is_set, word) in [
        (header.reply != 0, " reply"),
        (header.more != 0, " more"),
        (header.is_idempotent(), " idempotent"),
    ] {
        if is_set {
            out.push_str(word);
        }
    }
    if !body.is_empty() {
        out.push(' ');
        quoted(body, header.len as usize, &mut out);
    }
    out
}

/// A text from anywhere as one line without control characters: what is logged must not look like
/// two entries, nor move a terminal's cursor.
pub fn one_line(text: String) -> String {
    if !text.contains(char::is_control) {
        return text;
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_debug());
        } else {
            out.push(c);
        }
    }
    out
}

/// One line about a frame.
pub fn frame(frame: &Frame) -> String {
    let parts = encode::parts(frame.clone());
    line(&Header::read(&parts.head), &parts.body)
}

/// Bytes as `hexdump -C` prints them: offset, sixteen bytes, ASCII; then the size. Runs of equal
/// lines are not folded. Empty for no bytes.
pub fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 5 + 16);
    for (index, row) in bytes.chunks(16).enumerate() {
        let _ = write!(out, "{:08x} ", index * 16);
        for column in 0..16 {
            if column == 8 {
                out.push(' ');
            }
            match row.get(column) {
                Some(byte) => {
                    let _ = write!(out, " {byte:02x}");
                }
                None => out.push_str("   "),
            }
        }
        out.push_str("  |");
        out.extend(row.iter().map(|byte| printable(*byte)));
        out.push_str("|\n");
    }
    if !bytes.is_empty() {
        let _ = writeln!(out, "{:08x}", bytes.len());
    }
    out
}

/// The same bytes as a plain row of hexadecimal digits.
pub fn digits(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
    out
}

const fn printable(byte: u8) -> char {
    if byte.is_ascii_graphic() || byte == b' ' { byte as char } else { '.' }
}

/// The beginning of a body in quotation marks; what is not printable is escaped.
fn quoted(body: &[u8], size: usize, out: &mut String) {
    let shown = &body[..body.len().min(BODY_SHOWN_MAX)];
    let _ = write!(out, "\"{}\"", shown.escape_ascii());
    if shown.len() < size.max(body.len()) {
        out.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn a_line_tells_the_fields_that_are_set() {
        let head =
            Header { sequence: 7, reply: 1, more: 1, flags: 1, priority: 5, ..Header::default() };
        let text = frame(&Frame::data(head, Bytes::from_static(b"he\n\"llo\xff")));
        assert_eq!(text, r#"data seq=7 pri=5 len=8 reply more idempotent "he\n\"llo\xff""#);
        assert_eq!(frame(&Frame::Logout), "logout len=0");
        let head = Header { command: 999, error: -17, version: 1, ..Header::default() };
        assert_eq!(line(&head, b""), "kind?999 len=0 error=-17(worker_died) version=1");
        let head = Header { error: 42, ..Header::default() };
        assert_eq!(line(&head, b""), "data len=0 error=42(application)");
    }

    #[test]
    fn a_long_body_is_cut() {
        let body = vec![b'x'; BODY_SHOWN_MAX];
        let head = Header { len: 48, ..Header::default() };
        assert!(!line(&head, &body).contains('…'));
        let head = Header { len: 49, ..Header::default() };
        assert!(line(&head, &body).ends_with("x\"…"));
        assert!(line(&head, &[b'x'; 49]).ends_with("x\"…"));
    }

    #[test]
    fn any_header_can_be_shown() {
        for seed in 0..=255u8 {
            let bytes = [seed; crate::limits::HEADER_BYTES];
            assert!(!line(&Header::read(&bytes), &bytes).contains(char::is_control));
        }
    }

    #[test]
    fn hex_looks_like_hexdump() {
        assert_eq!(hex(b""), "");
        assert_eq!(
            hex(b"hello, world\n\x00\xff~+"),
            "00000000  68 65 6c 6c 6f 2c 20 77  6f 72 6c 64 0a 00 ff 7e  |hello, world...~|\n\
             00000010  2b                                                |+|\n\
             00000011\n"
        );
        assert_eq!(digits(b"\x00\xffa"), "00ff61");
    }
}
