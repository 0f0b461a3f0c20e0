//! One action of the broker as a script writes it, and its comparison with the expectation. The
//! shell makes items from actions, `show` from frames.

use super::words::{self, Token};
use broker::engine::fact::Fact;

/// An action of the broker.
#[derive(Clone, Debug, Default)]
pub struct Item {
    /// The words that must match exactly.
    pub head: String,
    /// `key=value`: checked when named. The flag says whether it is written unasked.
    pub pairs: Vec<(&'static str, String, bool)>,
    /// The text of an error or a fact: `says="part of it"` is checked when named.
    pub says: Option<String>,
    /// Whether `says` is written unasked.
    pub shows_says: bool,
    /// The receiver, and an operator's answer or error as it is sent.
    pub answer: Option<(String, String)>,
    /// An answer of several lines.
    pub text: Vec<String>,
    /// The script need not name it: facts, pings, writes to the state directory.
    pub is_quiet: bool,
}

impl Item {
    /// An item of plain words.
    pub fn new(head: impl Into<String>) -> Self {
        Self { head: head.into(), ..Self::default() }
    }

    /// An item that the script need not name.
    #[must_use]
    pub fn quiet(mut self) -> Self {
        self.is_quiet = true;
        self
    }

    /// Adds a value that is checked when named.
    #[must_use]
    pub fn with(self, key: &'static str, value: impl ToString) -> Self {
        self.showing(key, value, false)
    }

    /// With a value that is written unasked if `is_shown`.
    #[must_use]
    pub fn showing(mut self, key: &'static str, value: impl ToString, is_shown: bool) -> Self {
        self.pairs.push((key, value.to_string(), is_shown));
        self
    }

    /// Adds a text of which the script may name a part.
    #[must_use]
    pub fn saying(mut self, text: impl Into<String>, is_shown: bool) -> Self {
        self.says = Some(text.into());
        self.shows_says = is_shown;
        self
    }

    /// With what an operator is sent.
    #[must_use]
    pub fn answering(mut self, to: &str, answer: impl Into<String>) -> Self {
        self.answer = Some((to.to_owned(), answer.into()));
        self
    }

    /// A fact, with all that it is about.
    pub(super) fn fact(fact: &Fact) -> Self {
        let about = &fact.about;
        let pairs = [
            ("client", about.client.map(|id| id.to_string())),
            ("worker", about.worker.map(|id| id.to_string())),
            ("service", about.service.as_ref().map(ToString::to_string)),
            ("host", about.host.as_ref().map(ToString::to_string)),
            ("trans", about.transaction.map(|id| id.to_string())),
            ("instance", about.instance.clone()),
            ("who", about.who.clone()),
        ];
        let pairs = pairs.into_iter().filter_map(|(key, value)| Some((key, value?, false)));
        let item = Self::new(format!("fact {}", fact.kind.row().name)).quiet();
        Self { pairs: pairs.collect(), ..item }.saying(&fact.text, false)
    }

    /// The item as `UPDATE=1` writes it.
    pub(super) fn canonical(&self) -> String {
        let mut out = self.head.clone();
        for (key, value, _) in self.pairs.iter().filter(|(_, _, is_shown)| *is_shown) {
            out += &format!(" {key}={}", pair_value(value));
        }
        if let Some(says) = self.says.as_ref().filter(|_| self.shows_says) {
            out += &format!(" says={}", words::quote(says.lines().next().unwrap_or_default()));
        }
        out
    }

    /// The item with everything that could be named, for reports.
    pub(super) fn in_full(&self) -> String {
        let mut out = self.head.clone();
        for (key, value, _) in &self.pairs {
            out += &format!(" {key}={}", pair_value(value));
        }
        if let Some(says) = &self.says {
            out += &format!(" says={}", words::quote(says));
        }
        out
    }

    /// Whether an expectation matches this item.
    pub(super) fn fits(&self, expected: &str) -> bool {
        let Ok(tokens) = words::tokens(expected) else { return false };
        let mut head = Vec::new();
        for token in tokens {
            match token {
                Token::Word(word) => head.push(word),
                // A long body is written as its size, a long answer as it is.
                Token::Quoted(text) => {
                    let quoted = words::quote(&String::from_utf8_lossy(&text));
                    let is_whole = self.head.contains(&quoted);
                    head.push(if is_whole { quoted } else { words::body(&text) });
                }
                Token::Pair(key, value) => {
                    let value = String::from_utf8_lossy(&value).into_owned();
                    let is_right = if key == "says" {
                        self.says.as_ref().is_some_and(|says| says.contains(&value))
                    } else {
                        self.pairs.iter().any(|(k, v, _)| *k == key && *v == value)
                    };
                    if !is_right {
                        return false;
                    }
                }
            }
        }
        head.join(" ") == self.head
    }
}

fn pair_value(value: &str) -> String {
    let is_plain = !value.is_empty() && !value.contains([' ', '"', ';', '\n', '|']);
    if is_plain { value.to_owned() } else { words::quote(value) }
}

/// The result of comparing expected with actual items.
#[derive(Debug)]
pub(super) struct Verdict {
    /// The corrected expectation: the author's words where they match, generated ones elsewhere.
    pub(super) better: Vec<String>,
    /// Lines for the report; empty = all match.
    pub(super) diff: Vec<String>,
}

/// Compares the expected items with the actual ones.
pub(super) fn compare(expected: &[String], is_open: bool, got: &[Item]) -> Verdict {
    let mut wanted: Vec<Option<&String>> = expected.iter().map(Some).collect();
    // Items that need no name are matched in any order and removed first.
    let mut quiet = Vec::new();
    for slot in &mut wanted {
        if let Some(text) = *slot
            && got.iter().any(|item| item.is_quiet && item.fits(text))
        {
            quiet.push(text.clone());
            *slot = None;
        }
    }
    let wanted: Vec<&String> = wanted.into_iter().flatten().collect();
    let loud: Vec<&Item> = got.iter().filter(|item| !item.is_quiet).collect();
    let mut diff = Vec::new();
    let mut better = Vec::new();
    let mut next = 0;
    for item in &loud {
        if let Some(at) = (next..wanted.len()).find(|&at| item.fits(wanted[at])) {
            diff.extend(wanted[next..at].iter().map(|text| format!("- {text}")));
            better.push(wanted[at].clone());
            next = at + 1;
        } else if !is_open {
            diff.push(format!("+ {}", item.in_full()));
            better.push(item.canonical());
        }
    }
    diff.extend(wanted[next..].iter().map(|text| format!("- {text}")));
    if !diff.is_empty() {
        diff.extend(got.iter().filter(|i| i.is_quiet).map(|i| format!("  ({})", i.in_full())));
    }
    better.extend(quiet);
    Verdict { better, diff }
}

/// Whether lines of text fit; a line `...` stands for any number of lines.
pub(super) fn text_fits(expected: &[String], got: &[String]) -> bool {
    match expected {
        [] => got.is_empty(),
        [dots, rest @ ..] if dots == "..." => {
            (0..=got.len()).any(|skip| text_fits(rest, &got[skip..]))
        }
        [first, rest @ ..] => {
            got.first().is_some_and(|line| line.trim_end() == first.trim_end())
                && text_fits(rest, &got[1..])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn right(expected: &[&str], got: &[Item]) -> bool {
        let expected: Vec<String> = expected.iter().map(|text| (*text).to_owned()).collect();
        compare(&expected, false, got).diff.is_empty()
    }

    #[test]
    fn what_is_named_must_fit_and_nothing_loud_may_be_unnamed() {
        let error = Item::new("c1 error deadline")
            .showing("ran", "no", true)
            .with("seq", 1)
            .saying("it waited 10 ms", false);
        let fact = Item::new("fact changed").saying("start echo", false).quiet();
        let got = [error, fact];
        assert!(right(&["c1 error deadline"], &got));
        assert!(right(
            &["c1 error deadline ran=no seq=1 says=\"waited 10\"", "fact changed"],
            &got
        ));
        assert!(!right(&["c1 error deadline ran=maybe"], &got));
        assert!(!right(&["c1 error deadline seq=2"], &got));
        assert!(!right(&["c1 error deadline says=\"no such\""], &got));
        assert!(!right(&[], &got));
        assert!(!right(&["c1 error deadline", "fact refused"], &got));
        assert!(!right(&["c1 error deadline", "c1 error deadline"], &got));
    }

    #[test]
    fn order_counts() {
        let got = [Item::new("a"), Item::new("b")];
        assert!(right(&["a", "b"], &got));
        assert!(!right(&["b", "a"], &got));
        assert!(compare(&["b".to_owned()], true, &got).diff.is_empty());
    }

    #[test]
    fn dots_stand_for_lines() {
        let lines = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        assert!(text_fits(&lines(&["a", "...", "d"]), &lines(&["a", "b", "c", "d"])));
        assert!(!text_fits(&lines(&["a", "...", "e"]), &lines(&["a", "b", "c", "d"])));
        assert!(!text_fits(&lines(&[]), &lines(&["a"])));
    }
}
