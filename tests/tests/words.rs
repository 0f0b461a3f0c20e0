//! Checks that names and texts use no word that docs/glossary.md rules out. The last table of that
//! page lists those words and the places where they may stand.

use broker::engine::fact::FACTS;
use isect_tests::docs;
use isect_tests::source_text::pieces;
use protocol::errors::ERRORS;
use protocol::kinds::KINDS;
use protocol::settings::{SERVICE_SETTINGS, SETTINGS};
use std::collections::BTreeSet;

/// The page with the table of banned words, which may therefore use them.
const PAGE: &str = "docs/glossary.md";
/// The heading above the table.
const HEADING: &str = "\n## Words that are not used\n";
/// Identifiers of this many words are sentences, as the names of tests are.
const SENTENCE_WORDS_MIN: usize = 5;

/// A row of the table.
#[derive(Debug, Default)]
struct Row {
    /// Words that no name may contain.
    words: BTreeSet<String>,
    /// Whole names that are banned.
    names: BTreeSet<String>,
    instead: String,
    is_prose: bool,
    /// Names and files that may have them all the same.
    places: BTreeSet<String>,
}

/// The cells of each row of all tables in a text, without the head and the line below it.
fn cells(text: &str) -> Vec<Vec<&str>> {
    let is_row = |line: &&str| line.starts_with('|');
    let lines: Vec<&str> = text.lines().collect();
    let mut rows = Vec::new();
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| is_row(line)) {
        let is_head = lines.get(at + 1).is_some_and(|next| next.starts_with("| ---"));
        if !is_head && !line.starts_with("| ---") {
            rows.push(line.trim_matches('|').split('|').map(str::trim).collect());
        }
    }
    rows
}

/// The names in backticks, and the rest of a cell.
fn ticked(cell: &str) -> (BTreeSet<String>, String) {
    let names = cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    (names, cell.split('`').step_by(2).collect())
}

fn row(cells: &[&str]) -> Row {
    let [words, instead, places] = cells else { panic!("three cells, not {cells:?}") };
    let (names, words) = ticked(words);
    let (places, prose) = ticked(places);
    let words = words.split(',').map(str::trim).filter(|word| !word.is_empty());
    Row {
        words: words.map(str::to_owned).collect(),
        names,
        instead: (*instead).to_owned(),
        is_prose: prose.split(',').any(|item| item.trim() == "prose"),
        places,
    }
}

fn page() -> (String, Vec<Row>) {
    let page = std::fs::read_to_string(docs::root().join(PAGE)).expect("the glossary");
    let (words, banned) = page.split_once(HEADING).expect("its table of words not used");
    (words.to_owned(), cells(banned).iter().map(|cells| row(cells)).collect())
}

/// The words of a name, in lower case.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let letters: Vec<char> = name.chars().collect();
    for (at, c) in letters.iter().enumerate() {
        let before = at.checked_sub(1).map(|at| letters[at]);
        let after = letters.get(at + 1);
        let is_first = before.is_none_or(|b| !b.is_ascii_alphabetic())
            || (c.is_ascii_uppercase() && before.is_some_and(|b| b.is_ascii_lowercase()))
            || (c.is_ascii_uppercase() && after.is_some_and(char::is_ascii_lowercase));
        if !c.is_ascii_alphabetic() {
            continue;
        }
        match words.last_mut() {
            Some(word) if !is_first => word.push(c.to_ascii_lowercase()),
            _ => words.push(c.to_ascii_lowercase().to_string()),
        }
    }
    words
}

/// The fault of one name of a file, or of one word in its texts.
fn check(token: &str, is_code: bool, file: &str, rows: &[Row]) -> Option<String> {
    let words = words(token);
    let is_name =
        (is_code || token.contains('_') || words.len() > 1) && words.len() < SENTENCE_WORDS_MIN;
    for row in rows.iter().filter(|row| !row.places.contains(file)) {
        let is_same = |word: &String| {
            row.words.contains(word)
                || word.strip_suffix('s').is_some_and(|w| row.words.contains(w))
        };
        let is_banned = (is_name || !row.is_prose) && words.iter().any(is_same)
            || is_name && row.names.contains(token);
        if is_banned && !row.places.contains(token) {
            return Some(format!("{file}: {token}; say: {}", row.instead));
        }
    }
    None
}

/// The faults of a file: of its name, and of its contents.
fn scan(file: &str, text: &str, rows: &[Row]) -> Vec<String> {
    let is_source = file.ends_with(".rs");
    let pieces = if is_source { pieces(text) } else { vec![(false, text)] };
    let name = file.split(['/', '-', '.']).map(|part| (true, part));
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let tokens = pieces.into_iter().flat_map(|(is_code, piece)| {
        piece.split(move |c| !is_part(c)).map(move |token| (is_code, token))
    });
    name.chain(tokens)
        .filter(|(_, token)| !token.is_empty())
        .filter_map(|(is_code, token)| check(token, is_code, file, rows))
        .collect()
}

#[test]
fn no_word_that_is_not_used_comes_back() {
    let (_, rows) = page();
    assert!(rows.len() > 20, "only {} rows", rows.len());
    let mut faults = Vec::new();
    for (name, text) in docs::texts().iter().filter(|(name, _)| name != PAGE) {
        faults.append(&mut scan(name, text, &rows));
    }
    let kinds = KINDS.iter().map(|row| row.name);
    let settings = SETTINGS.iter().chain(SERVICE_SETTINGS).map(|row| row.name);
    let errors = ERRORS.iter().map(|row| row.name);
    let facts = FACTS.iter().map(|row| row.name);
    for name in kinds.chain(settings).chain(errors).chain(facts) {
        faults.extend(check(&name.replace('-', "_"), true, "a table", &rows));
    }
    assert!(
        faults.is_empty(),
        "{} words that are not used, see {PAGE}:\n  {}",
        faults.len(),
        faults.join("\n  ")
    );
}

#[test]
fn no_word_of_the_glossary_is_banned_by_it() {
    let (page, banned) = page();
    let rows = cells(&page);
    let list = |cell: &str| -> Vec<String> {
        cell.split(',').map(|word| word.trim().trim_start_matches("to ").to_owned()).collect()
    };
    let defined: BTreeSet<String> = rows.iter().flat_map(|cells| list(cells[0])).collect();
    assert!(defined.len() > 60, "only {} words", defined.len());
    for cells in &rows {
        for word in list(cells[2]) {
            assert!(!defined.contains(&word), "'{word}' is a word, and 'not' of {}", cells[0]);
        }
    }
    for row in &banned {
        for word in &row.words {
            assert!(!defined.contains(word), "'{word}' is a word, and is not used");
        }
        let said: BTreeSet<String> = words(&row.instead).into_iter().collect();
        let other = banned.iter().flat_map(|other| &other.words).find(|word| said.contains(*word));
        assert!(other.is_none(), "say '{}': {other:?} is not used", row.instead);
    }
}

#[test]
fn a_word_that_comes_back_is_found() {
    let table = "| a | b | c |\n| --- | --- | --- |\n\
                 | otter | login | |\n| newt | process | prose, `NEWT` |\n\
                 | `Toad` | slot | `a/b.rs` |\n";
    let rows: Vec<Row> = cells(table).iter().map(|cells| row(cells)).collect();
    let faults = |file: &str, text: &str| scan(file, text, &rows).len();
    for (count, file, text) in [
        (1, "x.rs", "let worker_otters = 1;"),
        (1, "x.rs", "struct BadOtter;"),
        (1, "x.rs", "// It shows its otter.\nlet a = 'b';"),
        (1, "x.md", "set ISECT_OTTER to"),
        (1, "a/otter-ok.hex", ""),
        (1, "x.rs", "let newt = \"a newt\"; // its newt"),
        (1, "x.md", "its newt is `is_newt`"),
        (0, "x.rs", "const NEWT: u8 = 0;"),
        (0, "x.rs", "fn a_worker_newts_as_long_as_its_host() {}"),
        (0, "x.rs", "let newtling: &'a str = r#\"newts\"#; // '\nlet b = 'a';"),
        (1, "x.rs", "let a: &'newt str = \"\";"),
        (2, "x.rs", "struct Toad; let p = Toad;"),
        (0, "a/b.rs", "struct Toad;"),
        (0, "x.md", "Toad it is."),
    ] {
        assert_eq!(faults(file, text), count, "{file}: {text}");
    }
}
