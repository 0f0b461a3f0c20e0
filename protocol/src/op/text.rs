//! The text view of an answer. Whatever stands in a value, one line stays one line and no control
//! character reaches a terminal.

use super::reply::{Align, Block, Column, Value};
use crate::show;

/// Blanks between columns.
const GAP: usize = 2;

pub(super) fn render(blocks: &[Block]) -> String {
    let mut out = String::new();
    let mut after_lines = true;
    for block in blocks.iter().filter(|block| !matches!(block, Block::Nothing { .. })) {
        // A page of several parts is easier to read with a blank line after each that is not a
        // line.
        if !after_lines {
            out.push('\n');
        }
        after_lines = matches!(block, Block::Line { .. });
        one(block, &mut out);
    }
    out
}

fn one(block: &Block, out: &mut String) {
    match block {
        Block::Line { text, .. } => line(&clean(text, false), out),
        Block::Record { prefix, width, fields, .. } => record(prefix, *width, fields, out),
        Block::Table { title, columns, rows, .. } => {
            if !title.is_empty() {
                line(&clean(title, false), out);
            }
            table(columns, rows, out);
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

/// The text without hidden characters (a tab in free text stays).
fn clean(text: &str, keep_tabs: bool) -> String {
    if keep_tabs { show::lines(text) } else { show::one_line(text.to_owned()) }
}

fn record(prefix: &str, width: usize, fields: &[(&'static str, Value)], out: &mut String) {
    let longest = fields.iter().map(|(key, _)| prefix.len() + key.len()).max().unwrap_or_default();
    let width = if width == 0 { 0 } else { width.max(longest) };
    for (key, value) in fields {
        let name = format!("{prefix}{key}");
        let texts = match value {
            // One line each: these are the last lines of a program's stderr.
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
            line(&format!("{name:width$} = {text}"), out);
        }
    }
}

fn table(columns: &[Column], rows: &[Vec<Value>], out: &mut String) {
    let cells: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(plain).collect()).collect();
    let is_seen = |index: usize| {
        let is_blank = |row: &Vec<String>| row.get(index).is_none_or(String::is_empty);
        !columns[index].title.is_empty() || !cells.iter().all(is_blank)
    };
    let mut widths = Vec::with_capacity(columns.len());
    for (index, column) in columns.iter().enumerate() {
        let longest = cells
            .iter()
            .filter_map(|row| row.get(index))
            .map(|cell| cell.chars().count())
            .chain([column.title.chars().count()])
            .max()
            .unwrap_or_default();
        // A right column has its gap inside its width, so that the manual's tables come out
        // exactly.
        widths.push(match column.align {
            Align::Right if index > 0 => column.width.max(longest + GAP),
            Align::Right | Align::Left => column.width.max(longest),
        });
    }
    let titles: Vec<String> = columns.iter().map(|column| column.title.to_owned()).collect();
    for row in [titles].iter().chain(&cells) {
        let mut text = String::new();
        for (index, (column, width)) in columns.iter().zip(&widths).enumerate() {
            let cell = row.get(index).map_or("", String::as_str);
            match column.align {
                _ if !is_seen(index) => {}
                Align::Right => text.push_str(&format!("{cell:>width$}")),
                Align::Left if index == 0 => text.push_str(&format!("{cell:width$}")),
                Align::Left => text.push_str(&format!("{:GAP$}{cell:width$}", "")),
            }
        }
        line(&text, out);
    }
}

/// A value as it stands in a cell.
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

/// A span of time as people read it: `0.213 ms`, `1.204 s`, `2m 05s`, `3h 07m`, `4d 11h`.
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
