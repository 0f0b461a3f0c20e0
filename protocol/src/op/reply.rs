//! The answers of `op` by value, and their text for people, in the manual's form where it has one.
//! The engine supplies the values; the broker's `translate` writes them as JSON.

use super::shape::Form;
use super::spec::Command;
use crate::time::Wall;
use bytes::Bytes;

pub use super::shape::{Align, Column};
pub use super::text::span;

/// One value in an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// No value: blank in text, null in JSON.
    None,
    /// A whole number.
    Number(i128),
    /// Text. Records quote it, as the manual does. JSON writes null for an empty one.
    Text(String),
    /// A word that is never quoted, for example a state.
    Word(&'static str),
    /// `yes` or `no` in text, `true` or `false` in JSON.
    Flag(bool),
    /// A span of time in microseconds. JSON writes the number, text a readable form.
    Micros(u64),
    /// A wall-clock time: local time with its offset in text, RFC 3339 in JSON.
    Time(Wall),
    /// A list of numbers (buckets).
    Numbers(Vec<u64>),
    /// A list of texts (last lines of stderr).
    Texts(Vec<String>),
    /// A value that JSON writes differently from text, for example the manual's `0` for a switch
    /// that is off.
    As {
        /// The form in text.
        shown: String,
        /// The form in JSON.
        value: Box<Self>,
    },
    /// Null in JSON, and no line in the text of a record.
    Unsaid,
}

impl Value {
    /// A value with its own wording in text.
    pub fn shown(shown: impl Into<String>, value: Self) -> Self {
        Self::As { shown: shown.into(), value: Box::new(value) }
    }

    /// A switch as the manual's pages print it: 1 or 0.
    pub fn bit(is_set: bool) -> Self {
        Self::shown(if is_set { "1" } else { "0" }, Self::Flag(is_set))
    }

    /// A switch that text prints as `on` or `off`.
    pub fn on_off(is_on: bool) -> Self {
        Self::shown(if is_on { "on" } else { "off" }, Self::Flag(is_on))
    }

    /// A count of which 0 means that there is none.
    pub fn maybe(number: impl Into<i128>) -> Self {
        match number.into() {
            0 => Self::shown("0", Self::None),
            number => Self::Number(number),
        }
    }
}

/// A part of an answer. Its `name` is the key in JSON.
#[expect(missing_docs, reason = "`name` is described above; the rest say what they are")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Block {
    /// One line of text (`cloned 4 from 2`), with the same facts for JSON.
    Line {
        name: &'static str,
        text: String,
        /// Keys and values for JSON.
        fields: Vec<(&'static str, Value)>,
    },
    /// `prefix.key = value` lines: the manual's `isdData.…` and `worker->…` pages.
    Record {
        name: &'static str,
        /// `isdData.` or `worker->`, printed before each key.
        prefix: &'static str,
        /// Least width of prefix and key together, so that the `=` stand in one column; 0 = one
        /// blank.
        width: usize,
        /// Keys and values, in order.
        fields: Vec<(&'static str, Value)>,
    },
    /// A table with a heading line.
    Table {
        name: &'static str,
        /// A line above the table in text; empty = none.
        title: String,
        columns: Vec<Column>,
        /// The values, one vector for each row, as long as `columns`.
        rows: Vec<Vec<Value>>,
    },
    /// Text as it is (help, a script).
    Text {
        name: &'static str,
        /// Lines ended by `
        /// `, the last one without.
        text: String,
    },
    /// Bytes: a hex dump in text, `{size, shown, hex, text}` in JSON.
    Dump {
        name: &'static str,
        /// Bytes of the whole body, of which `bytes` may be only the beginning.
        size: u64,
        /// The bytes that were kept.
        bytes: Bytes,
    },
    /// No text; in JSON the empty array of a list without entries.
    Nothing { name: &'static str },
}

/// A whole answer to one command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpReply {
    /// The parts of the answer, in order.
    pub blocks: Vec<Block>,
}

impl OpReply {
    /// The answer `Ok.`, as the manual prints it.
    pub fn ok() -> Self {
        Self::line("ok", "Ok.", vec![])
    }

    /// An answer of one line.
    pub fn line(
        name: &'static str,
        text: impl Into<String>,
        fields: Vec<(&'static str, Value)>,
    ) -> Self {
        Self { blocks: vec![Block::Line { name, text: text.into(), fields }] }
    }

    /// An answer that has this part only.
    pub fn block(block: Block) -> Self {
        Self { blocks: vec![block] }
    }

    /// About how many lines it has, as a measure of how long it takes to render it.
    pub fn rows(&self) -> usize {
        let rows = |block: &Block| match block {
            Block::Table { rows, .. } => rows.len(),
            Block::Text { text, .. } => text.len() / 64,
            Block::Line { .. }
            | Block::Record { .. }
            | Block::Dump { .. }
            | Block::Nothing { .. } => 1,
        };
        self.blocks.iter().map(rows).sum()
    }

    /// The answer as text, in the manual's form where it has one. Each line ends with `
    /// `; no line ends with a blank.
    pub fn text(&self) -> String {
        super::text::render(&self.blocks, None)
    }

    /// The answer as text that fits a terminal with this many columns.
    pub fn screen(&self, columns: u16) -> String {
        super::text::render(&self.blocks, Some(columns.into()))
    }

    /// Adds the lists that the answer to this command always has, also when they are empty.
    #[must_use]
    pub fn complete(mut self, command: Command) -> Self {
        let lists = command.row().answer.iter();
        for shape in lists.filter(|shape| shape.always && shape.form == Form::Array) {
            if !self.blocks.iter().any(|block| block.name() == shape.name) {
                self.blocks.push(Block::Nothing { name: shape.name });
            }
        }
        self
    }
}

impl Block {
    /// The key in JSON.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Line { name, .. }
            | Self::Record { name, .. }
            | Self::Table { name, .. }
            | Self::Text { name, .. }
            | Self::Dump { name, .. }
            | Self::Nothing { name } => name,
        }
    }
}
