//! Topics and patterns: which texts they are, and which topics a pattern matches. The rules are
//! those of NATS, so that a bridge needs no more than a table. Data only: who may publish what is
//! in `rights`, who gets a message is decided by the broker.

use crate::show;
use std::fmt;

/// Most bytes of a topic or a pattern.
pub const TOPIC_BYTES_MAX: usize = 255;

/// Most words of a topic or a pattern: with each one, the broker may have to look at more patterns.
pub const TOPIC_WORDS_MAX: usize = 32;

/// First word of the topics that only the broker and its built-in services publish. Wildcards in
/// front do not match it: it has to be named.
pub const OWN_WORD: &str = "isect";

/// Most bytes of a wrong topic that an error shows.
const SHOWN_MAX: usize = 60;

/// Checks a topic: words of at least one character, between dots, without wildcards.
///
/// # Errors
/// Says which rule the text breaks, and where.
pub fn check_topic(topic: &str) -> Result<(), String> {
    check("topic", topic, |_, word| match word {
        "*" | ">" => Some("has a wildcard; a topic that is published names every word".to_owned()),
        _ => None,
    })
}

/// A pattern that matches topics: words between dots, `*` for any one word, `>` at the end for one
/// or more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(String);

impl Pattern {
    /// Checks the spelling.
    ///
    /// # Errors
    /// Says which rule the text breaks, and where.
    pub fn new(given: &str) -> Result<Self, String> {
        let last = given.split('.').count().saturating_sub(1);
        check("pattern", given, |at, word| {
            (word == ">" && at != last)
                .then(|| "has '>' before its end; '>' stands for all words that are left".into())
        })?;
        Ok(Self(given.to_owned()))
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its words.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }

    /// Whether it matches a topic.
    pub fn matches(&self, topic: &str) -> bool {
        self.covers_words(topic, |own, word| own == "*" || own == word)
    }

    /// Whether it matches all topics that another pattern matches.
    pub fn covers(&self, other: &Self) -> bool {
        self.covers_words(&other.0, |own, word| (own == "*" && word != ">") || own == word)
    }

    /// Whether it matches topics of the broker itself, which only patterns do that name their first
    /// word.
    pub fn is_own(&self) -> bool {
        self.words().next() == Some(OWN_WORD)
    }

    fn covers_words(&self, words: &str, is_covered: impl Fn(&str, &str) -> bool) -> bool {
        let mut own = self.words();
        for (at, word) in words.split('.').enumerate() {
            match own.next() {
                None => return false,
                Some(wildcard @ ("*" | ">")) if at == 0 && word == OWN_WORD => {
                    debug_assert!(!wildcard.is_empty());
                    return false;
                }
                Some(">") => return true,
                Some(pattern) if is_covered(pattern, word) => {}
                Some(_) => return false,
            }
        }
        own.next().is_none()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Checks what topics and patterns have in common; `wrong` says what is wrong with a word, by its
/// position.
fn check(
    what: &str,
    given: &str,
    wrong: impl Fn(usize, &str) -> Option<String>,
) -> Result<(), String> {
    let shown = || show::brief(given, SHOWN_MAX);
    if given.is_empty() {
        return Err(format!("a {what} is empty; it needs at least one word"));
    }
    if given.len() > TOPIC_BYTES_MAX {
        return Err(format!(
            "{what} '{}' has {} bytes; at most {TOPIC_BYTES_MAX} are allowed",
            shown(),
            given.len()
        ));
    }
    if let Some(c) = given.chars().find(|c| c.is_whitespace() || c.is_control()) {
        return Err(format!(
            "{what} '{}' contains {c:?}; write blanks and the like as %XX",
            shown()
        ));
    }
    let words = given.split('.').count();
    if words > TOPIC_WORDS_MAX {
        return Err(format!(
            "{what} '{}' has {words} words; at most {TOPIC_WORDS_MAX} are allowed",
            shown()
        ));
    }
    for (at, word) in given.split('.').enumerate() {
        if word.is_empty() {
            return Err(format!(
                "word {} of {what} '{}' is empty; words stand between single dots",
                at + 1,
                shown()
            ));
        }
        if let Some(why) = wrong(at, word) {
            return Err(format!("{what} '{}' {why}", shown()));
        }
    }
    Ok(())
}

/// A name as one word of a topic: bytes other than ASCII letters, digits, `-` and `_` become `%XX`.
pub fn escape_word(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => out.push(byte.into()),
            _ => out += &format!("%{byte:02X}"),
        }
    }
    out
}

/// Patterns of which each allows what it covers (a role `publish:…` or `subscribe:…`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patterns(Vec<Pattern>);

impl Patterns {
    /// These patterns, which must be valid.
    pub(crate) fn of(patterns: &[&str]) -> Self {
        Self(patterns.iter().filter_map(|pattern| Pattern::new(pattern).ok()).collect())
    }

    /// Whether one of them matches a topic.
    pub fn allow(&self, topic: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(topic))
    }

    /// Whether one of them covers a pattern.
    pub fn cover(&self, pattern: &Pattern) -> bool {
        self.0.iter().any(|own| own.covers(pattern))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds patterns, with commas between them.
    pub(crate) fn add(&mut self, words: &str) -> Result<(), String> {
        for word in words.split(',') {
            let pattern = Pattern::new(word)?;
            if let Err(at) = self.0.binary_search(&pattern) {
                self.0.insert(at, pattern);
            }
        }
        Ok(())
    }
}

impl fmt::Display for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = self.0.iter().map(Pattern::as_str).collect();
        f.write_str(&words.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::new(text).unwrap()
    }

    #[test]
    fn a_pattern_matches_the_topics_that_its_words_describe() {
        for (text, topic, is_matched) in [
            ("orders.eu", "orders.eu", true),
            ("orders.eu", "orders.eu.created", false),
            ("orders.eu", "orders", false),
            ("orders.*", "orders.eu", true),
            ("orders.*", "orders", false),
            ("orders.*", "orders.eu.created", false),
            ("orders.*.created", "orders.eu.created", true),
            ("orders.>", "orders.eu.created", true),
            ("orders.>", "orders", false),
            (">", "orders", true),
            ("*", "orders", true),
            ("a*", "ab", false),
            (">", "isect.fact", false),
            ("*.fact", "isect.fact", false),
            ("isect.>", "isect.fact.changed", true),
            ("isect.*", "isect.fact", true),
            (">", "isectx.fact", true),
        ] {
            assert_eq!(pattern(text).matches(topic), is_matched, "{text} {topic}");
        }
    }

    #[test]
    fn a_pattern_covers_others_that_match_no_more() {
        for (text, other, is_covered) in [
            (">", "orders.>", true),
            (">", ">", true),
            (">", "*", true),
            (">", "isect.>", false),
            ("orders.>", ">", false),
            ("orders.>", "orders.*", true),
            ("orders.*", "orders.>", false),
            ("orders.*", "orders.*", true),
            ("orders.*", "orders.eu", true),
            ("orders.eu", "orders.*", false),
            ("isect.state.>", "isect.state.*.pump", true),
            ("isect.state.>", "isect.>", false),
        ] {
            assert_eq!(pattern(text).covers(&pattern(other)), is_covered, "{text} {other}");
        }
    }

    #[test]
    fn what_is_no_topic_or_pattern_says_why() {
        for (given, part) in [
            ("", "is empty"),
            ("a..b", "word 2"),
            (".a", "word 1"),
            ("a.", "word 2"),
            ("a b", "%XX"),
            ("a\nb", "%XX"),
            ("a.*", "wildcard"),
            (">", "wildcard"),
            (&"x".repeat(256), "256 bytes"),
            (&["x"; 33].join("."), "has 33 words; at most 32 are allowed"),
        ] {
            let error = check_topic(given).unwrap_err();
            assert!(error.contains(part), "{given}: {error}");
        }
        assert_eq!(check_topic(&"x".repeat(255)), Ok(()));
        assert_eq!(check_topic(&["x"; 32].join(".")), Ok(()));
        assert_eq!(check_topic("orders.eu.created"), Ok(()));
        let error = Pattern::new("a.>.b").unwrap_err();
        assert!(error.contains("before its end"), "{error}");
        let error = Pattern::new(&["*"; 33].join(".")).unwrap_err();
        assert!(error.contains("pattern '") && error.contains("33 words"), "{error}");
    }

    #[test]
    fn names_become_one_word() {
        assert_eq!(escape_word("tier-1_a"), "tier-1_a");
        assert_eq!(escape_word("a.b #ü"), "a%2Eb%20%23%C3%BC");
    }
}
