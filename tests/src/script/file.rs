//! Reads a script file as cases and steps, and writes updated expectations back into it.

/// One stimulus and the actions expected for it.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// Line of the stimulus, from 1.
    pub(super) line: usize,
    /// Number of its lines: its own, `>` lines and `|` lines.
    pub(super) lines: usize,
    /// The stimulus without the blanks around it.
    pub(super) stimulus: String,
    /// The left side as written, up to the bar.
    pub(super) left: String,
    /// The expected actions as written; `None` = not checked.
    pub(super) expected: Option<Vec<String>>,
    /// Whether further actions are allowed (`...`).
    pub(super) is_open: bool,
    /// The expected lines of an operator's answer.
    pub(super) text: Vec<String>,
}

/// A case: one behaviour on a fresh broker.
#[derive(Clone, Debug)]
pub(super) struct Case {
    /// The case's title, after `==`.
    pub(super) title: String,
    /// The steps of the case, in order.
    pub(super) steps: Vec<Step>,
}

/// Finds `part` outside of quotation marks; returns its position.
fn find_outside(line: &str, wanted: &str) -> Option<usize> {
    let mut in_quotes = false;
    let mut is_escaped = false;
    for (at, c) in line.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if in_quotes => is_escaped = true,
            '"' => in_quotes = !in_quotes,
            _ if !in_quotes && line[at..].starts_with(wanted) => return Some(at),
            _ => {}
        }
    }
    None
}

/// The items of the right side, and whether it ends with `...`.
fn items(right: &str) -> (Vec<String>, bool) {
    let mut out = Vec::new();
    let mut is_open = false;
    let mut rest = right;
    loop {
        let at = find_outside(rest, ";").unwrap_or(rest.len());
        let item = rest[..at].trim();
        match item.strip_suffix("...") {
            Some(before) => {
                is_open = true;
                if !before.trim().is_empty() {
                    out.push(before.trim().to_owned());
                }
            }
            None if item.is_empty() => {}
            None => out.push(item.to_owned()),
        }
        match rest.get(at + 1..) {
            Some(after) => rest = after,
            None => return (out, is_open),
        }
    }
}

/// Parses a file. `name` is the title of the case before the first `==`.
pub(super) fn cases(name: &str, source: &str) -> Vec<Case> {
    let mut cases = vec![Case { title: name.to_owned(), steps: Vec::new() }];
    for (index, line) in source.lines().enumerate() {
        let is_continued = line.starts_with(' ') || line.starts_with('\t');
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        if let Some(title) = trimmed.strip_prefix("== ") {
            cases.push(Case { title: title.trim().to_owned(), steps: Vec::new() });
            continue;
        }
        let steps = &mut cases.last_mut().expect("there is always one").steps;
        if let Some(last) = steps.last_mut().filter(|_| is_continued) {
            if let Some(right) = trimmed.strip_prefix('>') {
                let (more, is_open) = items(right);
                last.expected.get_or_insert_default().extend(more);
                last.is_open |= is_open;
                last.lines = index + 2 - last.line;
                continue;
            }
            if let Some(text) = trimmed.strip_prefix('|') {
                last.text.push(text.strip_prefix(' ').unwrap_or(text).to_owned());
                last.lines = index + 2 - last.line;
                continue;
            }
        }
        let bar = find_outside(line, "| >").or_else(|| line.find("| >"));
        let left = &line[..bar.unwrap_or(line.len())];
        let (expected, is_open) = match bar {
            Some(bar) => {
                let (items, is_open) = items(&line[bar + 3..]);
                (Some(items), is_open)
            }
            None => (None, false),
        };
        steps.push(Step {
            line: index + 1,
            lines: 1,
            stimulus: left.trim().to_owned(),
            left: left.to_owned(),
            expected,
            is_open,
            text: Vec::new(),
        });
    }
    cases.retain(|case| !case.steps.is_empty());
    cases
}

/// The lines of a step with other expectations.
pub(super) fn rewritten(step: &Step, items: &[String], text: &[String]) -> Vec<String> {
    const WIDTH_MAX: usize = 110;
    let dots = if step.is_open { " ..." } else { "" };
    let joined = items.join(" ; ");
    let blank = if joined.is_empty() { "" } else { " " };
    let one = format!("{}| >{blank}{joined}{dots}", step.left);
    let mut lines = if one.chars().count() <= WIDTH_MAX || items.len() < 2 {
        vec![one]
    } else {
        let mut lines = vec![format!("{}| >{dots}", step.left)];
        lines.extend(items.iter().map(|item| format!("    > {item}")));
        lines
    };
    lines.extend(text.iter().map(|line| format!("    | {line}").trim_end().to_owned()));
    lines
}
