//! Splits a command line into words, quotes words and compares them. `parse` knows what they mean.

use super::parse::OpError;
use crate::limits::{COMMAND_BYTES_MAX, WORDS_MAX};

/// Most characters of a foreign word that an error text shows.
const SHOWN_CHARS_MAX: usize = 40;

/// Quotes a word so that [`parse`](super::parse::parse) reads it back as one word. Control
/// characters are written as in `$'…'` of a shell, so that the line stays one line.
pub fn quote(word: &str) -> String {
    let is_plain = |c: char| {
        c.is_alphanumeric()
            || matches!(c, '_' | '-' | '.' | '/' | ':' | '=' | ',' | '@' | '%' | '+')
    };
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    if word.chars().any(is_control) {
        return quote_controls(word);
    }
    if !word.contains('\'') {
        return format!("'{word}'");
    }
    let mut out = String::with_capacity(word.len() + 4);
    out.push('"');
    for c in word.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

/// A character that can't stand in a line of a script as it is.
fn is_control(c: char) -> bool {
    c.is_control() && c != '\t'
}

fn quote_controls(word: &str) -> String {
    let mut out = String::from("$'");
    for c in word.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\\' | '\'' => out.extend(['\\', c]),
            c if is_control(c) => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('\'');
    out
}

/// Splits a script into its commands, each with its line number, counted from 1. Blank lines and
/// lines that begin with `#` are left out.
pub fn parse_script(text: &str) -> Vec<(usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, trim(line)))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

pub(super) fn check_size(size: usize) -> Result<(), OpError> {
    if size <= COMMAND_BYTES_MAX {
        return Ok(());
    }
    Err(OpError::usage(format!(
        "the command has {size} bytes; at most {COMMAND_BYTES_MAX} are allowed"
    )))
}

fn trim(line: &str) -> &str {
    line.trim_matches(|c: char| c.is_whitespace() || c == '\0')
}

/// Splits a line at white space, with `'…'`, `"…"` and `\` as in a shell: single quotes keep
/// everything as it is; between double quotes `\` escapes `"` and `\` only. `$'…'` has `\n`, `\r`,
/// `\t`, `\\`, `\'` and `\uHHHH`.
pub(super) fn split(line: &str) -> Result<Vec<String>, OpError> {
    check_size(line.len())?;
    let line = trim(line);
    if let Some((at, c)) = line.char_indices().find(|(_, c)| c.is_control() && *c != '\t') {
        let why = if matches!(c, '\n' | '\r') { "; one message is one command" } else { "" };
        return Err(OpError::usage(format!(
            "byte {at} of the command is the control character {c:?}{why}"
        )));
    }
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c.is_whitespace() {
            words.extend(word.take());
            continue;
        }
        if word.is_none() && words.len() == WORDS_MAX {
            return Err(OpError::usage(format!("the command has more than {WORDS_MAX} words")));
        }
        let word = word.get_or_insert_default();
        match c {
            '\'' => quoted(&mut chars, at, c, word)?,
            '"' => quoted(&mut chars, at, c, word)?,
            '$' if chars.next_if(|(_, next)| *next == '\'').is_some() => {
                quoted_controls(&mut chars, at, word)?;
            }
            '\\' => match chars.next() {
                Some((_, next)) => word.push(next),
                None => {
                    return Err(OpError::usage(format!(
                        "the backslash at byte {at} is the last character; nothing follows it"
                    )));
                }
            },
            c => word.push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

fn quoted(
    chars: &mut std::iter::Peekable<std::str::CharIndices<'_>>,
    at: usize,
    mark: char,
    word: &mut String,
) -> Result<(), OpError> {
    while let Some((_, c)) = chars.next() {
        if c == mark {
            return Ok(());
        }
        let escaped = if mark == '"' && c == '\\' {
            chars.next_if(|(_, next)| matches!(next, '"' | '\\')).map(|(_, next)| next)
        } else {
            None
        };
        word.push(escaped.unwrap_or(c));
    }
    Err(OpError::usage(format!("the quotation mark {mark} at byte {at} is not closed")))
}

/// Reads what stands in `$'…'`; the first two characters are read already.
fn quoted_controls(
    chars: &mut std::iter::Peekable<std::str::CharIndices<'_>>,
    at: usize,
    word: &mut String,
) -> Result<(), OpError> {
    while let Some((_, c)) = chars.next() {
        let c = match c {
            '\'' => return Ok(()),
            '\\' => match chars.next() {
                Some((_, 'n')) => '\n',
                Some((_, 'r')) => '\r',
                Some((_, 't')) => '\t',
                Some((_, c @ ('\\' | '\''))) => c,
                Some((_, 'u')) => {
                    let digits: String = chars.by_ref().take(4).map(|(_, digit)| digit).collect();
                    let code = u32::from_str_radix(&digits, 16).ok();
                    let code = code.filter(|_| digits.bytes().all(|b| b.is_ascii_hexdigit()));
                    code.filter(|_| digits.len() == 4).and_then(char::from_u32).ok_or_else(
                        || {
                            OpError::usage(format!(
                                "\\u in the quotation that begins at byte {at} has not four \
                             hexadecimal digits of a character behind it"
                            ))
                        },
                    )?
                }
                Some((at, c)) => {
                    return Err(OpError::usage(format!(
                        "'\\{}' at byte {at} means nothing in $'…'; there are \\n, \\r, \\t, \\\\, \
                         \\' and \\uHHHH",
                        c.escape_debug()
                    )));
                }
                None => break,
            },
            c => c,
        };
        word.push(c);
    }
    Err(OpError::usage(format!("the quotation $' at byte {at} is not closed")))
}

/// A foreign word fit for an error text: no control characters, bounded length.
pub(super) fn shown(word: &str) -> String {
    let mut out: String = word.chars().take(SHOWN_CHARS_MAX).collect::<String>();
    if out.len() < word.len() {
        out.push('…');
    }
    out.chars()
        .flat_map(|c| {
            let (raw, escaped) =
                if c.is_control() { (None, Some(c.escape_debug())) } else { (Some(c), None) };
            raw.into_iter().chain(escaped.into_iter().flatten())
        })
        .collect()
}

/// The text `; did you mean '…'?`, or nothing.
pub(super) fn meant(hint: Option<&str>) -> String {
    hint.map(|word| format!("; did you mean '{word}'?")).unwrap_or_default()
}

/// The choice that the word was probably meant to be: one that differs in few letters for its
/// length, or the only one that begins with it.
pub fn nearest<'a>(word: &str, choices: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let size = word.chars().count();
    if size == 0 || size > SHOWN_CHARS_MAX {
        return None;
    }
    let off_max = match size {
        0..=2 => 0,
        3..=5 => 1,
        6..=10 => 2,
        _ => 3,
    };
    let letters = Letters::of(&word);
    let mut best: Option<(usize, &'a str)> = None;
    let mut begins: Vec<&'a str> = Vec::new();
    for choice in choices {
        // A choice whose length differs by more than the limit differs by more letters, too.
        if choice.chars().count().abs_diff(size) <= off_max {
            let off = letters.distance(choice);
            if off <= off_max && best.is_none_or(|(least, _)| off < least) {
                best = Some((off, choice));
            }
        }
        // More than one is as good as many.
        if size > 1
            && begins.len() < 2
            && choice.starts_with(word.as_str())
            && !begins.contains(&choice)
        {
            begins.push(choice);
        }
    }
    match (best, begins.as_slice()) {
        (Some((0, choice)), _) => Some(choice),
        // A word typed in part is more likely than another word with similar letters.
        (_, [only]) if size > 2 => Some(only),
        (Some((_, choice)), _) => Some(choice),
        (None, [only]) => Some(only),
        (None, _) => None,
    }
}

/// Whether the word can only be this choice, typed in part or with two letters swapped.
pub(super) fn is_slip(word: &str, choice: &str) -> bool {
    let word = word.to_lowercase();
    let sorted = |text: &str| {
        let mut letters: Vec<char> = text.chars().collect();
        letters.sort_unstable();
        letters
    };
    let is_swapped = || sorted(&word) == sorted(choice) && Letters::of(&word).distance(choice) <= 1;
    word.len() <= choice.len() && (choice.starts_with(word.as_str()) || is_swapped())
}

/// The letters of a word, and where each stands in it, as bits.
struct Letters {
    count: usize,
    ascii: [u64; 128],
    others: Vec<(char, u64)>,
}

impl Letters {
    /// Those of a word of at most 64 letters; further ones are left out.
    fn of(word: &str) -> Self {
        let mut letters = Self { count: 0, ascii: [0; 128], others: Vec::new() };
        for letter in word.chars().take(64) {
            let bit = 1 << letters.count;
            letters.count += 1;
            if letter.is_ascii() {
                letters.ascii[letter as usize] |= bit;
            } else {
                letters.others.push((letter, bit));
            }
        }
        letters
    }

    fn places(&self, of: char) -> u64 {
        if of.is_ascii() {
            return self.ascii[of as usize];
        }
        let others = self.others.iter().filter(|(letter, _)| *letter == of);
        others.fold(0, |bits, (_, bit)| bits | bit)
    }

    /// Edit distance: letters to insert, delete, replace or swap with their neighbour to turn one
    /// word into the other. A row of the usual table is kept in bits (Hyyrö, "A bit-vector
    /// algorithm for computing Levenshtein and Damerau edit distances", 2003), because a name may
    /// be compared with thousands.
    fn distance(&self, other: &str) -> usize {
        let Some(last) = self.count.checked_sub(1) else { return other.chars().count() };
        let mut off = self.count;
        let (mut up, mut down, mut same, mut before) = (u64::MAX, 0_u64, 0_u64, 0_u64);
        for letter in other.chars() {
            let here = self.places(letter);
            let swapped = ((!same & here) << 1) & before;
            same = ((here & up).wrapping_add(up) ^ up) | here | down | swapped;
            let (more, less) = (down | !(same | up), same & up);
            off = off + (more >> last & 1) as usize - (less >> last & 1) as usize;
            let more = more << 1 | 1;
            up = less << 1 | !(same | more);
            down = more & same;
            before = here;
        }
        off
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As in a textbook.
    fn table_distance(a: &str, b: &str) -> usize {
        let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
        let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
        for i in 1..=a.len() {
            let mut row = vec![i];
            for j in 1..=b.len() {
                let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut least = change.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    least = least.min(rows[i - 2][j - 2] + 1);
                }
                row.push(least);
            }
            rows.push(row);
        }
        rows[a.len()][b.len()]
    }

    #[test]
    fn the_distance_of_words_is_that_of_the_table() {
        let mut words = vec![String::new(), "ä".repeat(40), "ab".repeat(20)];
        let mut seed = 7_u64;
        for _ in 0..60 {
            let mut word = String::new();
            for _ in 0..seed >> 40 & 7 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                word.push(['a', 'b', 'c'][(seed >> 33) as usize % 3]);
            }
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            words.push(word);
        }
        for a in &words {
            for b in &words {
                assert_eq!(Letters::of(a).distance(b), table_distance(a, b), "{a:?} and {b:?}");
            }
        }
    }

    #[test]
    fn words_are_split_as_in_a_shell() {
        for (line, words) in [
            ("  a\tb  \0\n", vec!["a", "b"]),
            ("", vec![]),
            (" \0 ", vec![]),
            ("a 'b c' d", vec!["a", "b c", "d"]),
            (r#"a "b \" \\ \n" d"#, vec!["a", r#"b " \ \n"#, "d"]),
            (r"a\ b c\\", vec!["a b", r"c\"]),
            ("''", vec![""]),
            ("a''b\"c\"", vec!["abc"]),
            (r"'\' x", vec![r"\", "x"]),
        ] {
            assert_eq!(split(line).unwrap(), words, "{line:?}");
        }
    }

    #[test]
    fn what_is_quoted_is_read_back() {
        for word in [
            "",
            "a",
            "/usr/bin/x",
            "two words",
            "it's",
            "\"",
            "'\"\\",
            "\\",
            "\\\"'",
            "#7",
            "a\tb",
            "é ü",
            "日本",
            "$HOME",
            "a=b",
            "*",
            "~",
            " ",
            "\\n",
            "{}",
            "`x`",
            "-v",
            "\u{a0}",
        ] {
            let line = format!("x {} y", quote(word));
            assert_eq!(split(&line).unwrap(), ["x", word, "y"], "{line}");
        }
    }

    #[test]
    fn any_mix_of_awkward_characters_is_quoted_and_read_back() {
        let letters = ['a', ' ', '\'', '"', '\\', '#', '\t', 'é'];
        for number in 0..letters.len().pow(4) {
            let word: String = (0..4)
                .map(|place| letters[number / letters.len().pow(place) % letters.len()])
                .collect();
            let line = format!("{} {}", quote(&word), quote(&word));
            assert_eq!(split(&line).unwrap(), [word.as_str(), &word], "{line}");
        }
    }

    #[test]
    fn limits_hold_at_the_limit_and_one_past_it() {
        assert!(split(&"a".repeat(COMMAND_BYTES_MAX)).is_ok());
        let error = split(&"a".repeat(COMMAND_BYTES_MAX + 1)).unwrap_err().text;
        assert!(error.contains("16385 bytes; at most 16384"), "{error}");
        assert_eq!(split(&"a ".repeat(WORDS_MAX)).unwrap().len(), WORDS_MAX);
        let error = split(&"a ".repeat(WORDS_MAX + 1)).unwrap_err().text;
        assert!(error.contains("more than 256 words"), "{error}");
    }

    #[test]
    fn bad_lines_say_where() {
        for (line, part) in [
            ("a 'b", "mark ' at byte 2 is not closed"),
            ("a \"b\\\"", "mark \" at byte 2 is not closed"),
            ("a b\\", "backslash at byte 3"),
            ("a\nb", "byte 1 of the command is the control character '\\n'; one message"),
            ("a\u{1b}[2J", "control character '\\u{1b}'"),
            ("a\0b", "control character '\\0'"),
        ] {
            let error = split(line).unwrap_err().text;
            assert!(error.contains(part), "{line:?}: {error}");
        }
    }

    #[test]
    fn a_near_miss_is_found_and_a_far_one_is_not() {
        let choices = ["worker", "workers", "start", "stop", "status", "listevents"];
        let near = |word| nearest(word, choices.into_iter());
        assert_eq!(near("wrokers"), Some("workers"));
        assert_eq!(near("WORKERS"), Some("workers"));
        assert_eq!(near("strat"), Some("start"));
        assert_eq!(near("list"), Some("listevents"));
        assert_eq!(near("razmafritz"), None);
        assert_eq!(near("hello"), None);
        assert_eq!(nearest("h9", ["h1", "h2"].into_iter()), None);
        assert_eq!(near("x"), None);
        assert_eq!(near(&"w".repeat(5000)), None);
    }

    #[test]
    fn scripts_keep_their_line_numbers() {
        let script = "# a\n\nservices\r\n  # b\n  workers idle \n";
        assert_eq!(parse_script(script), [(3, "services"), (5, "workers idle")]);
    }
}
