//! Walks through a markdown page as its reader would: runs the blocks to be typed and compares the
//! output with the page. Numbers may differ, words may not.

use std::collections::BTreeMap;

/// A block of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The line at which it begins, from 1.
    pub line: usize,
    /// The text behind the opening fence, such as `text` or `rust`.
    pub info: String,
    /// Content of the block, without its fences.
    pub text: String,
}

/// All fenced blocks of a page.
pub fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut is_inside = false;
    for (at, line) in page.lines().enumerate() {
        match (line.strip_prefix("```"), is_inside) {
            (Some(info), false) => {
                let info = info.trim().to_owned();
                blocks.push(Block { line: at + 1, info, text: String::new() });
                is_inside = true;
            }
            (Some(_), true) => is_inside = false,
            (None, true) => {
                if let Some(block) = blocks.last_mut() {
                    block.text += line;
                    block.text.push('\n');
                }
            }
            (None, false) => {}
        }
    }
    blocks
}

/// The commands of a session (after `$ `), each with the output that the page shows.
pub fn session(text: &str) -> Vec<(String, String)> {
    let mut steps: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(typed), _) => steps.push((typed.to_owned(), String::new())),
            (None, Some((_, said))) => {
                said.push_str(line);
                said.push('\n');
            }
            (None, None) => {}
        }
    }
    steps
}

/// Maps numbers of the page to those of this run, for example a process id that a later command
/// contains.
#[derive(Clone, Debug, Default)]
pub struct Numbers(BTreeMap<String, String>);

impl Numbers {
    /// Replaces the page's numbers in a line by those of this run.
    pub fn now(&self, lines: &str) -> String {
        let words = lines.split_inclusive([' ', '\n']).map(|piece| {
            let word = piece.trim_end_matches([' ', '\n', '"']);
            let now = self.0.get(word).map_or(word, String::as_str);
            format!("{now}{}", &piece[word.len()..])
        });
        words.collect()
    }

    /// Checks that the lines of the page appeared in this order; a line `…` matches any others.
    ///
    /// # Errors
    /// The first line that did not come.
    pub fn compare(&mut self, page: &str, came: &str) -> Result<(), String> {
        let mut rest = came.lines();
        let says = |line: &&str| !line.trim().is_empty() && line.trim() != "…";
        for line in page.lines().filter(says) {
            let found = rest.by_ref().find(|came| plain(came) == plain(line));
            let Some(found) = found else { return Err(format!("'{line}' did not come")) };
            for (old, new) in line.split_whitespace().zip(found.split_whitespace()) {
                if old != new && is_number(old) && is_number(new) {
                    self.0.insert(old.to_owned(), new.to_owned());
                }
            }
        }
        Ok(())
    }
}

/// Whether a number has enough digits to be a process id rather than a count.
fn is_number(word: &str) -> bool {
    word.len() > 2 && word.bytes().all(|byte| byte.is_ascii_digit())
}

/// Removes from a line what varies between runs: numbers, their units, and the width of columns.
fn plain(line: &str) -> String {
    let word = |word: &str| -> String {
        let mut out = String::new();
        for letter in word.chars() {
            let letter = if letter.is_ascii_digit() { '#' } else { letter };
            if letter != '#' || !out.ends_with('#') {
                out.push(letter);
            }
        }
        match out.as_str() {
            "s" | "ms" | "us" => "ms".to_owned(),
            // A time of three places or a whole number of it.
            "#.#" => "#".to_owned(),
            _ => out,
        }
    };
    line.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_and_sessions_are_found() {
        let page = "Words\n```sh hub\none\ntwo\n```\nmore\n```\n$ a b\nsaid\n$ c\n```\n";
        let found = blocks(page);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].line, found[0].info.as_str()), (2, "sh hub"));
        assert_eq!(found[0].text, "one\ntwo\n");
        let steps = session(&found[1].text);
        assert_eq!(steps[0], ("a b".to_owned(), "said\n".to_owned()));
        assert_eq!(steps[1], ("c".to_owned(), String::new()));
    }

    #[test]
    fn numbers_may_differ_and_words_may_not() {
        let mut numbers = Numbers::default();
        let page = "worker 1, pid 17061\n…\n  up  1.500 s\n";
        let came = "first\nworker 1, pid 42424\nother\nup 30.1 ms\n";
        assert_eq!(numbers.compare(page, came), Ok(()));
        assert_eq!(numbers.now("kill -9 17061\nwait"), "kill -9 42424\nwait");
        assert!(numbers.compare("down 1.500 s\n", came).is_err());
        assert!(numbers.compare("up 1 ms\nfirst\n", came).is_err(), "in this order");
    }
}
