//! The text view of an answer. Whatever a value contains, one line stays one line, and no control
//! character reaches a terminal.

use super::layout::{Cells, pad, width, wrap};
use super::reply::{Align, Block, Column, Value};
use crate::show;

/// Blanks between columns.
const GAP: usize = 2;
/// Blanks before the lines on which a long line continues.
const INDENT: usize = 4;
/// Least width that is assumed of a terminal, in columns.
const SCREEN_MIN: usize = 20;

/// Renders the blocks. `screen` is the width of the terminal, if there is one and it is known.
pub(super) fn render(blocks: &[Block], screen: Option<usize>) -> String {
    let screen = screen.map(|columns| columns.max(SCREEN_MIN));
    let mut out = String::new();
    let mut after_lines = true;
    for block in blocks.iter().filter(|block| !matches!(block, Block::Nothing { .. })) {
        // A blank line follows each block that is not a single line, so that long answers are easy
        // to read.
        if !after_lines {
            out.push('\n');
        }
        after_lines = matches!(block, Block::Line { .. });
        one(block, screen, &mut out);
    }
    out
}

fn one(block: &Block, screen: Option<usize>, out: &mut String) {
    match block {
        Block::Line { text, .. } => flow(&clean(text, false), screen, out),
        Block::Record { prefix, width, fields, .. } => record(prefix, *width, fields, screen, out),
        Block::Table { title, columns, rows, .. } => {
            if !title.is_empty() {
                line(&clean(title, false), out);
            }
            table(columns, rows, screen, out);
        }
        Block::Text { text, .. } => text.lines().for_each(|text| line(&clean(text, true), out)),
        Block::Dump { size, bytes, .. } => {
            out.push_str(&show::hex(bytes));
            if *size > bytes.len() as u64 {
                out.push_str(&format!("the first {} of {size} bytes are shown\n", bytes.len()));
            }
        }
        Block::Nothing { .. } => {}
    }
}

fn line(text: &str, out: &mut String) {
    out.push_str(text.trim_end());
    out.push('\n');
}

/// Removes hidden characters from the text; tabs of free text may stay.
fn clean(text: &str, keep_tabs: bool) -> String {
    if keep_tabs { show::lines(text) } else { show::one_line(text.to_owned()) }
}

fn record(
    prefix: &str,
    width: usize,
    fields: &[(&'static str, Value)],
    screen: Option<usize>,
    out: &mut String,
) {
    let longest = fields.iter().map(|(key, _)| prefix.len() + key.len()).max().unwrap_or_default();
    let width = if width == 0 { 0 } else { width.max(longest) };
    for (key, value) in fields {
        let name = format!("{prefix}{key}");
        let texts = match value {
            // Each text has its own line: these are the last lines of a program's stderr.
            Value::Texts(texts) if !texts.is_empty() => {
                texts.iter().map(|text| format!("\"{}\"", clean(text, false))).collect()
            }
            Value::Text(text) => vec![format!("\"{}\"", clean(text, false))],
            Value::Time(wall) => vec![format!("\"{}\"", wall.local())],
            Value::Unsaid => Vec::new(),
            Value::None
            | Value::Number(_)
            | Value::Word(_)
            | Value::Flag(_)
            | Value::As { .. }
            | Value::Micros(_)
            | Value::Numbers(_)
            | Value::Texts(_) => vec![plain(value)],
        };
        for text in texts {
            flow(&format!("{name:width$} = {text}"), screen, out);
        }
    }
}

/// Prints a line, wrapped at blanks where it is too long for the terminal.
fn flow(text: &str, screen: Option<usize>, out: &mut String) {
    let Some(screen) = screen.filter(|screen| width(text) > *screen) else {
        return line(text, out);
    };
    for (index, part) in wrap(text, screen - INDENT).into_iter().enumerate() {
        let indent = if index == 0 { 0 } else { INDENT };
        line(&format!("{:indent$}{part}", ""), out);
    }
}

fn table(columns: &[Column], rows: &[Vec<Value>], screen: Option<usize>, out: &mut String) {
    let titles: Vec<String> = columns.iter().map(|column| column.title.to_owned()).collect();
    let cells = rows.iter().map(|row| row.iter().map(plain).collect());
    let is_text = |index: usize| {
        let mut cells = rows.iter().filter_map(|row| row.get(index));
        // Text shows a state as a sentence; JSON has only its word.
        let is_left = columns[index].align == Align::Left;
        let is_word = |value: &Value| matches!(value, Value::Word(_));
        let is_state =
            |cell: &Value| matches!(cell, Value::As { value, .. } if is_left && is_word(value));
        cells.all(|cell| {
            matches!(cell, Value::Text(_) | Value::None | Value::Unsaid) || is_state(cell)
        })
    };
    let mut cells = Cells {
        columns,
        rows: std::iter::once(titles).chain(cells).collect(),
        seen: Vec::new(),
        is_text: (0..columns.len()).map(is_text).collect(),
    };
    // A column without a title and with nothing in it may be one that only JSON has.
    cells.seen = (0..columns.len())
        .filter(|&index| !columns[index].title.is_empty() || cells.widest(index) > 0)
        .collect();
    let mut widths = Vec::with_capacity(columns.len());
    for (index, column) in columns.iter().enumerate() {
        let longest = cells.widest(index);
        // The width of a right-aligned column includes its gap, which reproduces the manual's
        // tables exactly.
        widths.push(match column.align {
            Align::Right if index > 0 => column.width.max(longest + GAP),
            Align::Left if index > 0 => column.width.max(longest) + GAP,
            Align::Right | Align::Left => column.width.max(longest),
        });
    }
    let all: usize = cells.seen.iter().map(|&index| widths[index]).sum();
    match screen {
        Some(screen) if all > screen => cells.fit(screen).iter().for_each(|text| line(text, out)),
        Some(_) | None => {
            for row in &cells.rows {
                let mut text = String::new();
                for &index in &cells.seen {
                    let cell = row.get(index).map_or("", String::as_str);
                    let gap = match columns[index].align {
                        Align::Left if index > 0 => GAP,
                        Align::Left | Align::Right => 0,
                    };
                    text.push_str(&" ".repeat(gap));
                    text.push_str(&pad(cell, widths[index] - gap, columns[index].align));
                }
                line(&text, out);
            }
        }
    }
}

/// The text of a value in a cell.
fn plain(value: &Value) -> String {
    match value {
        Value::None | Value::Unsaid => String::new(),
        Value::Flag(is_so) => if *is_so { "yes" } else { "no" }.to_owned(),
        Value::As { shown, .. } => clean(shown, false),
        Value::Number(number) => number.to_string(),
        Value::Text(text) => clean(text, false),
        Value::Word(word) => (*word).to_owned(),
        Value::Micros(micros) => span(*micros),
        Value::Time(wall) => wall.local(),
        Value::Numbers(numbers) => {
            numbers.iter().map(u64::to_string).collect::<Vec<_>>().join("  ")
        }
        Value::Texts(texts) => {
            texts.iter().map(|text| clean(text, false)).collect::<Vec<_>>().join(", ")
        }
    }
}

/// A span of time for people: `0.213 ms`, `1.204 s`, `2m 05s`, `3h 07m`, `4d 11h`.
pub fn span(micros: u64) -> String {
    let secs = micros / 1_000_000;
    match secs {
        0 => format!("{}.{:03} ms", micros / 1000, micros % 1000),
        1..60 => format!("{secs}.{:03} s", micros % 1_000_000 / 1000),
        60..3600 => format!("{}m {:02}s", secs / 60, secs % 60),
        3600..86_400 => format!("{}h {:02}m", secs / 3600, secs % 3600 / 60),
        _ => format!("{}d {:02}h", secs / 86_400, secs % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_readable_at_every_size() {
        for (micros, text) in [
            (0, "0.000 ms"),
            (213, "0.213 ms"),
            (999_999, "999.999 ms"),
            (1_000_000, "1.000 s"),
            (1_204_999, "1.204 s"),
            (60_000_000, "1m 00s"),
            (3_599_999_999, "59m 59s"),
            (3_600_000_000, "1h 00m"),
            (86_400_000_000 * 4 + 3_600_000_000 * 11, "4d 11h"),
            (u64::MAX, "213503982d 08h"),
        ] {
            assert_eq!(span(micros), text);
        }
    }
}
