//! The form of the configuration on the disk: `config.isect` is a snapshot, `config.journal` has
//! the changes since. Every line of the journal, and the snapshot as a whole, has a number and a
//! checksum, so that what is missing or damaged is noticed.
//!
//! | file | line | form |
//! | --- | --- | --- |
//! | `config.isect` | first | `# snapshot NUMBER CHECKSUM REPLACES`; an older broker wrote none |
//! | | others | the script that `save` prints, with the changes up to this number |
//! | `config.journal` | first | `NUMBER CHECKSUM # follows CHECKSUM`, the latter of the snapshot |
//! | | others | `NUMBER CHECKSUM COMMAND`; each number is one more than that before it |
//! | | | `NUMBER CHECKSUM + COMMAND`, if the next line is a part of the same change |
//!
//! The snapshot is replaced first and the journal after it. If the broker is killed in between, the
//! journal has changes that the snapshot has, too; they are skipped. REPLACES is the checksum of
//! the first line of that journal, `-` if there was none, so that no other journal is taken for it.

use sha2::{Digest, Sha256};
use std::fmt::Write as _;

/// Bytes of SHA-256 that are kept of it.
const CHECKSUM_BYTES: usize = 8;
const SNAPSHOT: &str = "# snapshot ";
const FOLLOWS: &str = "# follows ";
/// Before a command whose change has a further line. No command begins so.
const PART: &str = "+ ";
/// In place of the checksum of a journal: there was none.
const NO_JOURNAL: &str = "-";
const COPIES: &str = "put copies of config.isect and config.journal back";

/// The configuration as it was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::reactor) struct Kept {
    /// The snapshot and the changes since, as one script; empty = nothing is kept.
    pub(in crate::reactor) text: String,
    /// Number of the last change.
    pub(in crate::reactor) number: u64,
    /// Whether there are changes after the snapshot.
    pub(in crate::reactor) has_changes: bool,
    /// The end of the journal is a part of a change, of so many bytes, which is left out. 0 = it is
    /// whole.
    pub(in crate::reactor) torn_bytes: usize,
    /// The checksum of the journal's first line, for the snapshot that replaces it; `None` = there
    /// is no journal.
    pub(in crate::reactor) journal: Option<String>,
}

/// A number and a checksum before a text: the form of a line of the journal.
fn line(number: u64, text: &str) -> String {
    format!("{number} {} {text}", checksum(&format!("{number} {text}")))
}

/// The first bytes of the SHA-256 of a text, in hex.
fn checksum(text: &str) -> String {
    hex::encode(&Sha256::digest(text.as_bytes())[..CHECKSUM_BYTES])
}

/// Number and text of a line that is whole and undamaged.
fn read_line(text: &str) -> Option<(u64, &str)> {
    let mut words = text.splitn(3, ' ');
    let number = words.next()?.parse().ok()?;
    let command = words.nth(1)?;
    // Written again it is the same, which also holds for the checksum and each digit.
    (line(number, command) == text).then_some((number, command))
}

/// A snapshot with the changes up to this number, which replaces a journal whose first line has
/// this checksum.
pub(in crate::reactor) fn snapshot(number: u64, script: &str, replaces: Option<&str>) -> String {
    let replaces = replaces.unwrap_or(NO_JOURNAL);
    let sum = checksum(&format!("{number} {replaces} {script}"));
    format!("{SNAPSHOT}{number} {sum} {replaces}\n{script}")
}

/// A journal without changes, which follows a snapshot; and the checksum of its line.
pub(in crate::reactor) fn begin(number: u64, snapshot: &str) -> (String, String) {
    let first = line(number, &format!("{FOLLOWS}{}", checksum(snapshot)));
    (format!("{first}\n"), checksum(&first))
}

/// The lines of a change, after the line with this number.
pub(in crate::reactor) fn lines(after: u64, change: &str) -> String {
    let mut out = String::new();
    let mut commands = (after + 1..).zip(change.lines()).peekable();
    while let Some((number, command)) = commands.next() {
        let part = if commands.peek().is_some() { PART } else { "" };
        // Writing to a String can't fail.
        let _ = writeln!(out, "{}", line(number, &format!("{part}{command}")));
    }
    out
}

/// Reads both files; `None` = there is no such file.
///
/// # Errors
/// Names the file, what is wrong with it and what to do.
pub(in crate::reactor) fn read(
    snapshot: Option<&str>,
    journal: Option<&str>,
) -> Result<Kept, String> {
    for (name, text) in [("config.isect", snapshot), ("config.journal", journal)] {
        if text.is_some_and(|text| text.trim_matches('\0').is_empty()) {
            return Err(format!(
                "{name} is empty, which isectd never leaves it; {COPIES}, or remove both to begin \
                 without a configuration"
            ));
        }
    }
    let marked = snapshot.and_then(|text| text.strip_prefix(SNAPSHOT));
    let (number, replaces) = marked.map_or(Ok((0, NO_JOURNAL)), head_of)?;
    let mut kept = Kept { number, ..Kept::default() };
    kept.text = snapshot.unwrap_or_default().to_owned();
    match journal {
        Some(journal) => kept.follow(snapshot.unwrap_or_default(), replaces, journal)?,
        None if marked.is_some() => {
            return Err(format!(
                "config.journal is missing, which has the changes since config.isect was written; \
                 {COPIES}, or remove the first line of config.isect to go on without the changes"
            ));
        }
        None => {}
    }
    Ok(kept)
}

/// The number of a snapshot, whose text follows the word that marks it, and which journal it
/// replaces.
fn head_of(marked: &str) -> Result<(u64, &str), String> {
    let (head, script) = marked.split_once('\n').unwrap_or((marked, ""));
    let mut words = head.split(' ');
    let number = words.next().and_then(|number| number.parse().ok());
    let head = number.zip(words.nth(1));
    // Written again it is the same.
    let is_whole = |(number, replaces): &(u64, &str)| {
        snapshot(*number, script, Some(replaces))[SNAPSHOT.len()..] == *marked
    };
    head.filter(is_whole).ok_or_else(|| {
        format!(
            "config.isect is damaged or was changed (its checksum is wrong); {COPIES}; if it was \
             changed on purpose, remove its first line, and config.journal, to begin with it"
        )
    })
}

impl Kept {
    /// Adds the changes of a journal, which follows the snapshot, or which the snapshot replaces.
    fn follow(&mut self, snapshot: &str, replaces: &str, journal: &str) -> Result<(), String> {
        let mut chunks = journal.split_inclusive('\n').enumerate();
        let first = chunks.next().and_then(|(_, chunk)| chunk.strip_suffix('\n'));
        let follows = first.and_then(|first| {
            let (number, text) = read_line(first)?;
            Some((number, text.strip_prefix(FOLLOWS)?, checksum(first)))
        });
        let (mut last, sum, own) = follows.ok_or_else(|| damaged(1))?;
        let is_after = last == self.number && sum == checksum(snapshot);
        // A journal that is replaced has no change that the snapshot has not.
        let is_before = last < self.number && own == replaces;
        self.journal = Some(own);
        if !is_after && !is_before {
            return Err(format!(
                "config.isect is not the snapshot that config.journal follows (change {last}): it \
                 is missing, older, damaged or was changed; {COPIES}, or remove config.journal, and \
                 the first line of config.isect if it begins with '{SNAPSHOT}', to go on without \
                 the changes"
            ));
        }
        if !self.text.is_empty() && !self.text.ends_with('\n') {
            self.text.push('\n');
        }
        let (mut part, mut part_bytes) = (String::new(), 0);
        for (index, chunk) in chunks {
            let Some(whole) = chunk.strip_suffix('\n') else {
                // A line that has all but its last byte was not torn there: that byte is damaged.
                let shorter = chunk.char_indices().next_back().map_or("", |(at, _)| &chunk[..at]);
                if read_line(shorter).is_some() {
                    return Err(damaged(index + 1));
                }
                part_bytes += chunk.len();
                break;
            };
            let found = read_line(whole).filter(|(number, _)| last.checked_add(1) == Some(*number));
            let (number, text) = found.ok_or_else(|| damaged(index + 1))?;
            last = number;
            let command = text.strip_prefix(PART);
            part += command.unwrap_or(text);
            part.push('\n');
            part_bytes += chunk.len();
            if command.is_some() {
                continue;
            }
            if number > self.number {
                if is_before {
                    return Err(damaged(index + 1));
                }
                self.text += &part;
                (self.number, self.has_changes) = (number, true);
            }
            (part, part_bytes) = (String::new(), 0);
        }
        // What is torn in a journal that is replaced is in the snapshot.
        self.torn_bytes = if is_after { part_bytes } else { 0 };
        Ok(())
    }
}

fn damaged(line: usize) -> String {
    format!(
        "line {line} of config.journal is damaged or missing (its number or its checksum is wrong); \
         {COPIES}, or remove this line and all after it to go on with the changes before it; if it \
         is line 1, remove config.journal, and the first line of config.isect if it begins with \
         '{SNAPSHOT}'"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "# isect\nconfig service #2 echo\n";
    const CHANGES: &str = "config service #3 caf\nconfig worker #4 caf localhost '/b/ä'\nstart 4\n";

    /// A snapshot, and a journal with two changes: one of a line and one of two.
    fn files() -> (String, String) {
        let snapshot = snapshot(7, SCRIPT, None);
        let (first, second) = CHANGES.split_at(CHANGES.find('\n').unwrap() + 1);
        let journal = begin(7, &snapshot).0 + &lines(7, first) + &lines(8, second);
        (snapshot, journal)
    }

    fn read_both(snapshot: &str, journal: &str) -> Result<Kept, String> {
        read(Some(snapshot), Some(journal))
    }

    /// As files are read: bytes that are no text are replaced.
    fn lossy(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    #[test]
    fn what_is_written_is_read() {
        let (snapshot, journal) = files();
        let kept = read_both(&snapshot, &journal).unwrap();
        assert_eq!(kept.text, format!("{snapshot}{CHANGES}"));
        assert_eq!((kept.number, kept.has_changes, kept.torn_bytes), (10, true, 0));
        assert_eq!(read(None, None), Ok(Kept::default()));
        // A file of an older broker, alone and with changes since.
        let kept = read(Some(SCRIPT), None).unwrap();
        assert_eq!((kept.text.as_str(), kept.number, kept.has_changes), (SCRIPT, 0, false));
        let kept = read_both(SCRIPT, &(begin(0, SCRIPT).0 + &lines(0, CHANGES))).unwrap();
        assert_eq!((kept.text, kept.number), (format!("{SCRIPT}{CHANGES}"), 3));
        // No snapshot was needed yet.
        let kept = read(None, Some(&(begin(0, "").0 + &lines(0, CHANGES)))).unwrap();
        assert_eq!((kept.text.as_str(), kept.number), (CHANGES, 3));
    }

    #[test]
    fn a_journal_that_the_snapshot_replaces_adds_nothing_and_no_other_is_taken_for_it() {
        let (_, journal) = files();
        let own = checksum(journal.lines().next().unwrap());
        for number in 10..=12 {
            let newer = snapshot(number, SCRIPT, Some(&own));
            let kept = read_both(&newer, &journal).unwrap();
            assert_eq!((kept.text, kept.number, kept.has_changes), (newer, number, false));
            for other in [None, Some("0123456789abcdef")] {
                let why = read_both(&snapshot(number, SCRIPT, other), &journal).unwrap_err();
                assert!(why.contains("is not the snapshot that config.journal follows"), "{why}");
            }
        }
        // It has a change that the snapshot has not.
        for number in 8..10 {
            let why = read_both(&snapshot(number, SCRIPT, Some(&own)), &journal).unwrap_err();
            assert!(why.contains("of config.journal is damaged or missing"), "{why}");
        }
        assert!(read_both(&snapshot(7, SCRIPT, Some(&own)), &journal).is_err());
    }

    #[test]
    fn a_journal_cut_anywhere_loses_the_change_that_is_cut_and_says_so() {
        let (snapshot, journal) = files();
        let bytes = journal.as_bytes();
        let first = journal.find('\n').unwrap() + 1;
        for end in 0..=bytes.len() {
            for tail in [&b""[..], b"\0\0\0"] {
                let text = lossy(&[&bytes[..end], tail].concat());
                let kept = read_both(&snapshot, &text);
                if end < first {
                    let why = kept.unwrap_err();
                    assert!(why.contains("config.journal"), "{end}: {why}");
                    continue;
                }
                let whole = bytes[..end].iter().filter(|byte| **byte == b'\n').count() - 1;
                // The second change has two lines, of which none counts without the other.
                let is_torn = bytes[end - 1] != b'\n' || !tail.is_empty() || whole == 2;
                let kept = kept.unwrap();
                assert_eq!(kept.number, [7, 8, 8, 10][whole], "{end}");
                assert_eq!(kept.text.lines().count(), 3 + [0, 1, 1, 3][whole], "{end}");
                assert_eq!(kept.torn_bytes > 0, is_torn, "{end}");
            }
        }
    }

    #[test]
    fn a_bit_that_is_flipped_anywhere_is_noticed() {
        let (snapshot, journal) = files();
        let flipped = |text: &str, bit: usize| {
            let mut bytes = text.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            lossy(&bytes)
        };
        for bit in 0..snapshot.len() * 8 {
            let why = read_both(&flipped(&snapshot, bit), &journal).unwrap_err();
            assert!(why.contains("config.isect"), "bit {bit}: {why}");
        }
        for bit in 0..journal.len() * 8 {
            let why = read_both(&snapshot, &flipped(&journal, bit)).unwrap_err();
            assert!(why.contains("config.journal"), "bit {bit}: {why}");
        }
        for bit in 0..SCRIPT.len() * 8 {
            let why = read_both(&flipped(SCRIPT, bit), &begin(0, SCRIPT).0).unwrap_err();
            assert!(why.contains("config.isect"), "bit {bit}: {why}");
        }
    }

    #[test]
    fn lines_that_are_missing_twice_there_or_exchanged_are_noticed() {
        let (snapshot, journal) = files();
        let all: Vec<&str> = journal.split_inclusive('\n').collect();
        for order in [&[0, 2, 3][..], &[0, 1, 3], &[0, 2, 1, 3], &[0, 1, 1, 2], &[1, 2, 3]] {
            let text: String = order.iter().map(|&at| all[at]).collect();
            let why = read_both(&snapshot, &text).unwrap_err();
            assert!(why.contains("of config.journal is damaged or missing"), "{order:?}: {why}");
        }
    }

    #[test]
    fn a_file_that_is_empty_missing_or_of_another_time_is_never_taken() {
        let (now, journal) = files();
        for empty in ["", "\0\0"] {
            assert!(read_both(empty, &journal).unwrap_err().contains("config.isect is empty"));
            assert!(read_both(&now, empty).unwrap_err().contains("config.journal is empty"));
        }
        assert!(read(Some(&now), None).unwrap_err().contains("config.journal is missing"));
        for other in
            [None, Some(SCRIPT), Some(&*snapshot(6, SCRIPT, None)), Some(&*snapshot(7, "", None))]
        {
            let why = read(other, Some(&journal)).unwrap_err();
            assert!(why.contains("is not the snapshot that config.journal follows"), "{why}");
        }
        for end in 0..now.len() {
            assert!(read_both(&now[..end], &journal).is_err(), "{end}");
        }
    }
}
