//! Shows frames to people: one line for logs and `isdclient -d`, a hex dump for `last` and the
//! documents. It shows any bytes, also invalid ones. Nothing reads this form back.

use crate::encode;
use crate::errors::ErrorCode;
use crate::frame::Frame;
use crate::header::{FLAG_EXTENDABLE, Header};
use crate::kinds::Kind;
use std::borrow::Cow;
use std::fmt::Write as _;

/// Most bytes of a body that one line shows.
const BODY_SHOWN_MAX: usize = 48;

/// Describes a header and the beginning of its body in one line. Fields that are zero are left out.
///
/// Example: `data seq=7 trans=12 worker=3 len=5 more "hello"`.
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
        (header.flags & FLAG_EXTENDABLE != 0, " extendable"),
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

/// Characters that a reader can't see, or that change how the rest is shown: control characters (C1
/// too, with which terminal commands begin), format characters (category Cf: direction, zero width,
/// soft hyphen, tags), line and paragraph separators, characters that Unicode calls ignorable
/// (variation selectors, fillers), letters and notes without ink, and code points that are no
/// characters. Each entry is a range, first and last; the ranges are sorted.
const HIDDEN: &[(u32, u32)] = &[
    (0x00, 0x1f),
    (0x7f, 0x9f),
    (0xad, 0xad),
    (0x34f, 0x34f),
    (0x600, 0x605),
    (0x61c, 0x61c),
    (0x6dd, 0x6dd),
    (0x70f, 0x70f),
    (0x890, 0x891),
    (0x8e2, 0x8e2),
    (0x115f, 0x1160),
    (0x17b4, 0x17b5),
    (0x180b, 0x180f),
    (0x200b, 0x200f),
    (0x2028, 0x202e),
    (0x2060, 0x206f),
    (0x2800, 0x2800),
    (0x3164, 0x3164),
    (0xfdd0, 0xfdef),
    (0xfe00, 0xfe0f),
    (0xfeff, 0xfeff),
    (0xffa0, 0xffa0),
    (0xfff0, 0xfffb),
    (0xfffe, 0xffff),
    (0x110bd, 0x110bd),
    (0x110cd, 0x110cd),
    (0x13430, 0x1343f),
    (0x16fe4, 0x16fe4),
    (0x1bca0, 0x1bca3),
    (0x1d159, 0x1d159),
    (0x1d173, 0x1d17a),
    (0xe0000, 0xe0fff),
];

/// Whether a character must be escaped, because it would be invisible or change how the text around
/// it looks.
pub fn is_hidden(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    let code = u32::from(c);
    let is_noncharacter = code & 0xfffe == 0xfffe;
    let at = HIDDEN.partition_point(|(_, last)| *last < code);
    is_noncharacter || HIDDEN.get(at).is_some_and(|(first, _)| *first <= code)
}

/// Writes a hidden character in a visible form.
fn reveal(c: char, out: &mut String) {
    if c.is_control() {
        out.extend(c.escape_debug());
    } else {
        out.extend(c.escape_unicode());
    }
}

fn revealed(text: &str, is_kept: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_hidden(c) && !is_kept(c) {
            reveal(c, &mut out);
        } else {
            out.push(c);
        }
    }
    out
}

/// Escapes a text from outside to one visible line, so that a log entry can't look like two entries
/// or move a terminal's cursor.
pub fn one_line(text: String) -> String {
    if text.contains(is_hidden) { revealed(&text, |_| false) } else { text }
}

/// Escapes a text from outside for a terminal. Line breaks and tabs stay; everything else becomes
/// visible.
pub fn lines(text: &str) -> String {
    revealed(text, |c| matches!(c, '\n' | '\t'))
}

/// The beginning of a peer's text as one line, at most `bytes_max` bytes of it, with a note of how
/// many bytes are missing.
pub fn brief(text: &str, bytes_max: usize) -> String {
    let most = bytes_max.min(text.len());
    let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    let shown = revealed(&text[..end], |_| false);
    if end == text.len() { shown } else { format!("{shown}… ({} bytes more)", text.len() - end) }
}

/// Escapes a line of a log for output. Invalid UTF-8 and hidden characters become visible, as JSON
/// escapes in a line of JSON. The line end stays.
pub fn log_line(line: &[u8], is_json: bool) -> Cow<'_, [u8]> {
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~');
    if line.strip_suffix(b"\n").unwrap_or(line).iter().all(is_plain) {
        return Cow::Borrowed(line);
    }
    let text = String::from_utf8_lossy(line);
    let (text, end) = text.strip_suffix('\n').map_or((&*text, ""), |text| (text, "\n"));
    let mut out = String::with_capacity(line.len() + 16);
    for c in text.chars() {
        match (is_hidden(c), is_json) {
            (false, _) => out.push(c),
            (true, true) => json_escape(c, &mut out),
            (true, false) => reveal(c, &mut out),
        }
    }
    out.push_str(end);
    Cow::Owned(out.into_bytes())
}

/// Writes a character as `\u` and four digits, or as two of them (a surrogate pair) above U+FFFF.
fn json_escape(c: char, out: &mut String) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        let _ = write!(out, "\\u{unit:04x}");
    }
}

/// Describes a frame in one line.
pub fn frame(frame: &Frame) -> String {
    let encoded = encode::encode(frame.clone());
    line(&Header::read(&encoded.head), &encoded.body)
}

/// Bytes in the form of `hexdump -C`: offset, sixteen bytes, ASCII; then the size. Runs of equal
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

/// Bytes as a plain row of hexadecimal digits.
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

/// Writes the beginning of a body in quotation marks, with escapes.
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
        assert_eq!(frame(&Frame::Logout(crate::bodies::Logout::default())), "logout len=0");
        let head = Header { command: 999, error: -17, version: 1, ..Header::default() };
        assert_eq!(line(&head, b""), "kind?999 len=0 error=-17(worker_died) version=1");
        let head = Header { error: 42, ..Header::default() };
        assert_eq!(line(&head, b""), "data len=0 error=42(application)");
    }

    #[test]
    fn a_long_body_is_truncated() {
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
    fn no_hidden_character_of_all_there_are_comes_through() {
        assert!(HIDDEN.windows(2).all(|pair| pair[0].1 < pair[1].0), "sorted");
        let mut hidden = 0;
        for c in '\0'..=char::MAX {
            let text = format!("a{c}b");
            let shown = one_line(text.clone());
            assert!(!shown.contains(is_hidden), "{c:?}");
            assert_eq!(shown == text, !is_hidden(c), "{c:?}");
            assert!(!lines(&text).contains(|c| is_hidden(c) && c != '\n' && c != '\t'));
            assert!(!brief(&text, 9).contains(is_hidden));
            for is_json in [false, true] {
                let line = log_line(text.as_bytes(), is_json);
                assert!(!String::from_utf8_lossy(&line).contains(is_hidden), "{c:?}");
            }
            hidden += u32::from(is_hidden(c));
        }
        // 65 controls, 4174 that Unicode lets a program not show at all, 32 other format
        // characters, the separators of lines and paragraphs, 66 that are no characters, and three
        // that have no ink.
        assert_eq!(hidden, 65 + 4174 + 32 + 2 + 66 + 3);
        for c in "\u{1b}\u{7f}\u{80}\u{9b}\u{9f}\u{ad}\u{34f}\u{61c}\u{200b}\u{200d}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202e}\u{2060}\u{2066}\u{2069}\u{fe0f}\u{feff}\u{fffe}\u{1d173}\u{2800}\u{1d159}\u{16fe4}\u{e0001}\u{e0041}\u{e01ef}\u{1ffff}".chars() {
            assert!(is_hidden(c), "{c:?}");
        }
        for c in " aé\u{301}ä漢\u{a0}\u{3000}🦀€\u{fffd}\u{e000}".chars() {
            assert!(!is_hidden(c), "{c:?}");
        }
    }

    #[test]
    fn a_peers_text_is_truncated_and_says_so() {
        assert_eq!(brief("short", 5), "short");
        assert_eq!(brief("shorter", 5), "short… (2 bytes more)");
        assert_eq!(brief("ääää", 5), "ää… (4 bytes more)");
        assert_eq!(brief("a\nb\u{202e}", 99), "a\\nb\\u{202e}");
        assert_eq!(lines("a\tb\nc\u{1b}[2J"), "a\tb\nc\\u{1b}[2J");
    }

    #[test]
    fn a_line_of_the_log_stays_one() {
        assert_eq!(&*log_line(b"plain\n", false), b"plain\n");
        assert_eq!(&*log_line("ä\u{202e}\n".as_bytes(), false), "ä\\u{202e}\n".as_bytes());
        assert_eq!(&*log_line("\u{e0001}\n".as_bytes(), true), b"\\udb40\\udc01\n");
        assert_eq!(&*log_line(b"a\nb\n", false), b"a\\nb\n");
        assert_eq!(&*log_line(b"a\nb\n", true), b"a\\u000ab\n");
        assert_eq!(&*log_line(b"a\nb\xff", false), "a\\nb\u{fffd}".as_bytes());
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
