//! What `op` answers: rows by value, and their two views, text for people (as the manual prints
//! where it prints) and JSON. Not where the values come from: that is the engine.

use super::shape::{self, Form};
use super::spec::Command;
use crate::bodies::Format;
use crate::time::Wall;
use bytes::Bytes;

pub use super::text::span;

/// One value in an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing: blank in text, null in JSON.
    None,
    /// A whole number.
    Number(i128),
    /// Text; in a record it stands in quotation marks, as in the manual. JSON has null for an
    /// empty one.
    Text(String),
    /// A word that never needs quotation marks (a state).
    Word(&'static str),
    /// Whether something is so: `yes` or `no` in text.
    Flag(bool),
    /// A span of time in microseconds; JSON has the number, text a readable form.
    Micros(u64),
    /// A moment: local time with its offset in text, RFC 3339 in JSON.
    Time(Wall),
    /// A list of numbers (buckets).
    Numbers(Vec<u64>),
    /// A list of texts (last lines of stderr).
    Texts(Vec<String>),
    /// What JSON says otherwise than text does: the manual's `0` for a switch that is off, `""`
    /// for what there is not.
    As {
        /// As it stands in text.
        shown: String,
        /// As JSON has it.
        value: Box<Self>,
    },
    /// Nothing that is worth a line of a record: null in JSON.
    Unsaid,
}

impl Value {
    /// A value that text shows in words of its own.
    pub fn shown(shown: impl Into<String>, value: Self) -> Self {
        Self::As { shown: shown.into(), value: Box::new(value) }
    }

    /// A switch as the manual's pages show it: 1 or 0.
    pub fn bit(is_set: bool) -> Self {
        Self::shown(if is_set { "1" } else { "0" }, Self::Flag(is_set))
    }

    /// A switch that is `on` or `off`.
    pub fn on_off(is_on: bool) -> Self {
        Self::shown(if is_on { "on" } else { "off" }, Self::Flag(is_on))
    }

    /// A number of something of which 0 says that there is none.
    pub fn maybe(number: impl Into<i128>) -> Self {
        match number.into() {
            0 => Self::shown("0", Self::None),
            number => Self::Number(number),
        }
    }
}

/// Which edge of its column a value stands at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Left.
    Left,
    /// Right.
    Right,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Heading in text.
    pub title: &'static str,
    /// Key in JSON.
    pub key: &'static str,
    /// Least width in text.
    pub width: usize,
    /// Edge.
    pub align: Align,
}

/// A part of an answer. `name` is the key in JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Block {
    /// One line of text (`cloned 4 from 2`), with its facts for JSON.
    Line {
        /// Key in JSON.
        name: &'static str,
        /// The line.
        text: String,
        /// What it says, by key.
        fields: Vec<(&'static str, Value)>,
    },
    /// `prefix.key = value` lines: the manual's `isdData.…` and `worker->…` pages.
    Record {
        /// Key in JSON.
        name: &'static str,
        /// `isdData.` or `worker->`.
        prefix: &'static str,
        /// Least width of prefix and key together, so that the `=` stand in one column; 0 = one
        /// blank.
        width: usize,
        /// Key and value in order.
        fields: Vec<(&'static str, Value)>,
    },
    /// A table with a heading line.
    Table {
        /// Key in JSON.
        name: &'static str,
        /// Line above the table in text; empty = none.
        title: String,
        /// Columns.
        columns: Vec<Column>,
        /// One vector of values a row, as long as `columns`.
        rows: Vec<Vec<Value>>,
    },
    /// Text as it is (help, a script).
    Text {
        /// Key in JSON.
        name: &'static str,
        /// The text, lines ended by `\n` but for the last.
        text: String,
    },
    /// Bytes: a hex dump in text, `{size, shown, hex, text}` in JSON.
    Dump {
        /// Key in JSON.
        name: &'static str,
        /// How many there were.
        size: u64,
        /// Those that were kept.
        bytes: Bytes,
    },
    /// No text; in JSON the empty array of a list that has nothing in it.
    Nothing {
        /// Key in JSON.
        name: &'static str,
    },
}

/// A whole answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpReply {
    /// Its parts in order.
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

    /// An answer of one part.
    pub fn block(block: Block) -> Self {
        Self { blocks: vec![block] }
    }

    /// How many rows its longest table has.
    pub fn rows(&self) -> usize {
        let rows = |block: &Block| match block {
            Block::Table { rows, .. } => rows.len(),
            Block::Line { .. }
            | Block::Record { .. }
            | Block::Text { .. }
            | Block::Dump { .. }
            | Block::Nothing { .. } => 0,
        };
        self.blocks.iter().map(rows).max().unwrap_or_default()
    }

    /// The answer as a client wants it.
    pub fn render(&self, format: Format) -> String {
        match format {
            Format::Text => self.text(),
            Format::Screen(columns) => super::text::render(&self.blocks, Some(columns.into())),
            Format::Json => self.json(),
        }
    }

    /// The answer as text: what the manual prints where it prints something. Each line ends with
    /// `\n`, no line ends with a blank.
    pub fn text(&self) -> String {
        super::text::render(&self.blocks, None)
    }

    /// The answer as one JSON object, a key for each block name, as `shape` has it.
    pub fn json(&self) -> String {
        super::view::render(&self.blocks)
    }

    /// Adds what the answer to this command always has: its lists, also where they are empty.
    #[must_use]
    pub fn complete(mut self, command: Command) -> Self {
        let lists = shape::of(command).iter();
        for shape in lists.filter(|shape| shape.always && shape.form == Form::Array) {
            if !self.blocks.iter().any(|block| block.name() == shape.name) {
                self.blocks.push(Block::Nothing { name: shape.name });
            }
        }
        self
    }
}

impl Block {
    /// Its key in JSON.
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
