//! Fits a table to a narrow terminal: names are truncated, columns continue on the next line, the
//! last column of words wraps. Without a known width (a pipe, a file) `text` prints the table
//! unchanged.

use super::reply::{Align, Column};

/// Blanks between columns.
const GAP: usize = 2;
/// Blanks before the lines on which a row continues.
const INDENT: usize = 4;
/// Least width to which a name is truncated.
const TRUNCATED_MIN: usize = 24;
/// Least width of a column of wrapping words.
const FLOW_MIN: usize = 20;

/// Columns that a text takes on a terminal: wide characters take two, combining characters none.
pub(super) fn width(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.chars().map(char_width).sum() }
}

fn char_width(c: char) -> usize {
    match u32::from(c) {
        0x0300..=0x036f
        | 0x0483..=0x0489
        | 0x0591..=0x05bd
        | 0x0610..=0x061a
        | 0x064b..=0x065f
        | 0x0900..=0x0902
        | 0x0e31
        | 0x0e34..=0x0e3a
        | 0x0e47..=0x0e4e
        | 0x1ab0..=0x1aff
        | 0x1dc0..=0x1dff
        | 0x200b..=0x200f
        | 0x2060..=0x2064
        | 0x20d0..=0x20ff
        | 0xfe00..=0xfe0f
        | 0xfe20..=0xfe2f
        | 0xfeff
        | 0xe0100..=0xe01ef => 0,
        0x1100..=0x115f
        | 0x231a..=0x231b
        | 0x2329..=0x232a
        | 0x2e80..=0x303e
        | 0x3041..=0xa4cf
        | 0xa960..=0xa97f
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff01..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1f64f
        | 0x1f680..=0x1f6ff
        | 0x1f900..=0x1f9ff
        | 0x1fa70..=0x1faff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// Pads the text with blanks on its other edge to this width.
pub(super) fn pad(text: &str, size: usize, align: Align) -> String {
    let blanks = " ".repeat(size.saturating_sub(width(text)));
    match align {
        Align::Left => format!("{text}{blanks}"),
        Align::Right => format!("{blanks}{text}"),
    }
}

/// Truncates the text to this width; `…` marks that.
fn truncate(text: &str, size: usize) -> String {
    if width(text) <= size {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut left = size.saturating_sub(1);
    for c in text.chars() {
        let Some(rest) = left.checked_sub(char_width(c)) else { break };
        left = rest;
        out.push(c);
    }
    out.push('…');
    out
}

/// Wraps the text at blanks into lines of at most this width. A longer word stays whole.
pub(super) fn wrap(text: &str, size: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if width(line) + 1 + width(word) <= size => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A table as text: a row of titles and rows of cells. Only some columns are visible.
pub(super) struct Cells<'a> {
    pub(super) columns: &'a [Column],
    /// The titles first.
    pub(super) rows: Vec<Vec<String>>,
    /// Indices of the visible columns.
    pub(super) seen: Vec<usize>,
    /// For each column whether it has text that may be truncated.
    pub(super) is_text: Vec<bool>,
}

impl Cells<'_> {
    /// The widest cell of a column, its title included.
    pub(super) fn widest(&self, index: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(index));
        cells.map(|cell| width(cell)).max().unwrap_or_default()
    }

    /// The lines of the table on a terminal with this many columns.
    pub(super) fn fit(&self, screen: usize) -> Vec<String> {
        let mut widths: Vec<usize> =
            (0..self.columns.len()).map(|index| self.widest(index)).collect();
        let last = self.seen.last().copied();
        let flow = last.filter(|&at| {
            self.is_text[at] && self.columns[at].align == Align::Left && self.seen.len() > 1
        });
        let mut narrow = widths.clone();
        if self.truncate_names(&mut narrow, flow, screen) {
            widths = narrow;
        } else {
            // Such rows take several lines anyway; only a cell that is far too wide is truncated.
            let most = screen * 3 / 5;
            for (own, is_text) in widths.iter_mut().zip(&self.is_text) {
                *own = if *is_text { (*own).min(most) } else { *own };
            }
        }
        let bands = self.bands(&widths, flow, screen);
        let mut lines = Vec::new();
        for row in &self.rows {
            for (number, band) in bands.iter().enumerate() {
                self.print(row, band, (number, flow), (&widths, screen), &mut lines);
            }
        }
        lines
    }

    /// Truncates columns of text, the widest first, until all fit on one line; returns whether they
    /// do.
    fn truncate_names(&self, widths: &mut [usize], flow: Option<usize>, screen: usize) -> bool {
        let least = |index: usize| TRUNCATED_MIN.max(width(self.columns[index].title));
        loop {
            let mut all: usize = self.seen.len().saturating_sub(1) * GAP;
            for &index in &self.seen {
                let own = widths[index];
                all += if flow == Some(index) { own.min(FLOW_MIN) } else { own };
            }
            let can = |index: &&usize| {
                let index = **index;
                self.is_text[index] && flow != Some(index) && widths[index] > least(index)
            };
            let widest = self.seen.iter().filter(can).max_by_key(|&&index| widths[index]);
            match widest {
                Some(&index) if all > screen => {
                    widths[index] -= (all - screen).min((widths[index] - least(index)).div_ceil(2));
                }
                Some(_) | None => return all <= screen,
            }
        }
    }

    /// Assigns the columns to the lines of a row.
    fn bands(&self, widths: &[usize], flow: Option<usize>, screen: usize) -> Vec<Vec<usize>> {
        let mut bands: Vec<Vec<usize>> = vec![Vec::new()];
        let mut end = 0;
        for &index in &self.seen {
            let own = if flow == Some(index) { widths[index].min(FLOW_MIN) } else { widths[index] };
            let gap = if bands.last().is_none_or(Vec::is_empty) { 0 } else { GAP };
            if end + gap + own > screen && gap > 0 {
                bands.push(Vec::new());
                end = INDENT;
            } else {
                end += gap;
            }
            end += own;
            bands.last_mut().into_iter().for_each(|band| band.push(index));
        }
        bands
    }

    fn print(
        &self,
        row: &[String],
        band: &[usize],
        (number, flow): (usize, Option<usize>),
        (widths, screen): (&[usize], usize),
        lines: &mut Vec<String>,
    ) {
        let mut line = " ".repeat(if number == 0 { 0 } else { INDENT });
        for (place, &index) in band.iter().enumerate() {
            if place > 0 {
                line.push_str(&" ".repeat(GAP));
            }
            let cell = row.get(index).map_or("", String::as_str);
            if flow == Some(index) {
                let begin = width(&line);
                if cell.is_empty() && line.trim().is_empty() {
                    return;
                }
                let mut parts = wrap(cell, screen.saturating_sub(begin)).into_iter();
                line.push_str(&parts.next().unwrap_or_default());
                lines.push(std::mem::replace(&mut line, " ".repeat(begin)));
                lines.extend(parts.map(|part| format!("{}{part}", " ".repeat(begin))));
                return;
            }
            line.push_str(&pad(
                &truncate(cell, widths[index]),
                widths[index],
                self.columns[index].align,
            ));
        }
        if number == 0 || !line.trim().is_empty() {
            lines.push(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_and_combining_characters_take_their_room() {
        for (text, size) in [
            ("", 0),
            ("abc", 3),
            ("日本", 4),
            ("e\u{301}", 1),
            ("a\u{200d}b", 2),
            ("😀", 2),
            ("é", 1),
        ] {
            assert_eq!(width(text), size, "{text}");
        }
        assert_eq!(truncate("日本語", 5), "日本…");
        assert_eq!(truncate("日本語", 6), "日本語");
        assert_eq!(pad("日本", 6, Align::Right), "  日本");
        assert_eq!(wrap("one two  three", 7), ["one two", " three"]);
    }
}
