//! Commented hex text of frames: one line for each field of the header, then the body. A byte that
//! depends on the moment is `..` in the text and `None` as a value. It knows no frame kinds.

use bytes::BytesMut;
use protocol::errors::ErrorCode;
use protocol::header::{FIELDS, Field};
use protocol::kinds::Kind;
use protocol::limits::HEADER_BYTES;
use protocol::show;
use std::fmt::Write as _;

/// Bytes in one line.
const ROW_BYTES: usize = 16;

pub(crate) fn fixed(bytes: &[u8]) -> Vec<Option<u8>> {
    bytes.iter().copied().map(Some).collect()
}

fn row(prefix: &str, bytes: &[Option<u8>], comment: &str, out: &mut String) {
    let words: Vec<String> =
        bytes.iter().map(|b| b.map_or_else(|| "..".to_owned(), |b| format!("{b:02x}"))).collect();
    let _ = writeln!(out, "{prefix}{:<47}  # {comment}", words.join(" "));
}

/// What a field says: its value, and what the value is called.
fn value(field: &Field, bytes: &[Option<u8>]) -> String {
    let Some(bytes) = bytes.iter().copied().collect::<Option<Vec<u8>>>() else {
        return "depends on the moment".into();
    };
    if bytes.iter().all(|byte| *byte == 0) && field.name != "command" {
        return "0".into();
    }
    if field.kind == "bytes" {
        return show::digits(&bytes);
    }
    let number = bytes.iter().fold(0_u64, |n, byte| (n << 8) | u64::from(*byte));
    match (field.name, u16::try_from(number)) {
        ("command", Ok(short)) => {
            format!("{number} {}", Kind::of(short).map_or("?", |kind| kind.row().name))
        }
        ("error", Ok(short)) => {
            let code = short.cast_signed();
            format!("{code} {}", ErrorCode::of(code).map_or("application", ErrorCode::name))
        }
        ("span_id", _) => show::digits(&bytes),
        _ => number.to_string(),
    }
}

/// The lines of a frame. `is_short`: fields that are zero share a line.
pub(crate) fn render(prefix: &str, bytes: &[Option<u8>], is_short: bool, out: &mut String) {
    let (head, body) = bytes.split_at(HEADER_BYTES);
    let mut index = 0;
    while index < FIELDS.len() {
        let first = &FIELDS[index];
        let at = |field: &Field| field.offset..field.offset + field.width;
        let is_zero = |field: &Field| value(field, &head[at(field)]) == "0";
        let mut names = vec![first.name];
        let mut end = at(first).end;
        index += 1;
        while is_short && is_zero(first) && index < FIELDS.len() {
            let next = &FIELDS[index];
            if !is_zero(next) || at(next).end - first.offset > ROW_BYTES {
                break;
            }
            names.push(next.name);
            end = at(next).end;
            index += 1;
        }
        let comment =
            format!("{:2} {} = {}", first.offset, names.join(", "), value(first, &head[at(first)]));
        row(prefix, &head[first.offset..end], &comment, out);
    }
    for line in body.split_inclusive(|byte| *byte == Some(b'\n')) {
        for part in line.chunks(ROW_BYTES) {
            let text: Vec<u8> = part.iter().copied().flatten().collect();
            row(prefix, part, &format!("   \"{}\"", text.escape_ascii()), out);
        }
    }
}

/// The bytes of a line without its prefix and comment.
pub(crate) fn parse_row(line: &str) -> Vec<Option<u8>> {
    let code = line.split('#').next().unwrap_or(line);
    let byte = |word: &str| match word {
        ".." => None,
        word => {
            assert!(word.len() == 2, "'{word}' in '{line}' is not two digits");
            Some(u8::from_str_radix(word, 16).unwrap_or_else(|e| panic!("'{line}': {e}")))
        }
    };
    code.split_whitespace().map(byte).collect()
}

pub(crate) fn parse(text: &str) -> BytesMut {
    let bytes = text.lines().flat_map(parse_row).map(|byte| byte.expect("a fixed byte"));
    bytes.collect()
}
