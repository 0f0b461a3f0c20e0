//! Tells the code of a source file from its comments and literals.

/// Splits a source file into code and texts (comments, literals). Each piece says whether it is
/// code.
pub fn pieces(text: &str) -> Vec<(bool, &str)> {
    let mut pieces = Vec::new();
    let (mut begin, mut at) = (0, 0);
    while let Some(&byte) = text.as_bytes().get(at) {
        let Some(length) = text_length(&text[at..], byte) else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
            continue;
        };
        pieces.push((true, &text[begin..at]));
        pieces.push((false, &text[at..at + length]));
        at += length;
        begin = at;
    }
    pieces.push((true, &text[begin..]));
    pieces
}

/// The length of the comment or literal that begins here, if one does.
fn text_length(text: &str, first: u8) -> Option<usize> {
    let until = |end: &str, from: usize| {
        text[from..].find(end).map_or(text.len(), |found| from + found + end.len())
    };
    match first {
        b'/' if text.starts_with("//") => Some(text.find('\n').unwrap_or(text.len())),
        b'/' if text.starts_with("/*") => Some(until("*/", 2)),
        b'r' if text.starts_with("r\"") => Some(until("\"", 2)),
        b'r' if text.starts_with("r#\"") => Some(until("\"#", 3)),
        b'"' => {
            let mut is_escaped = false;
            let end = text.bytes().skip(1).position(|byte| {
                let is_end = byte == b'"' && !is_escaped;
                is_escaped = byte == b'\\' && !is_escaped;
                is_end
            });
            Some(end.map_or(text.len(), |end| end + 2))
        }
        // A character literal, not a lifetime.
        b'\'' if text.starts_with("'\\") => Some(until("'", 3)),
        b'\'' => {
            let c = text[1..].chars().next()?;
            text[1 + c.len_utf8()..].starts_with('\'').then(|| 2 + c.len_utf8())
        }
        _ => None,
    }
}
