//! The JSON view of an answer: one object with one key for each block name.

use super::json::Writer;
use super::reply::{Block, Value};
use super::shape::{self, Form};
use crate::show;

pub(super) fn render(blocks: &[Block]) -> String {
    let mut w = Writer::default();
    w.open_object();
    for (index, block) in blocks.iter().enumerate() {
        let name = block.name();
        if blocks[..index].iter().any(|earlier| earlier.name() == name) {
            continue;
        }
        w.key(name);
        let same: Vec<&Block> = blocks.iter().filter(|other| other.name() == name).collect();
        match (shape::form(name), same.as_slice()) {
            (Some(Form::True), _) => w.boolean(true),
            (Some(Form::Object | Form::Text), [only]) => one(only, &mut w),
            // The table has no such part, but an answer never has two of these.
            (None, [only @ (Block::Record { .. } | Block::Text { .. } | Block::Dump { .. })]) => {
                one(only, &mut w);
            }
            (None | Some(Form::Array | Form::Object | Form::Text), several) => {
                w.open_array();
                several.iter().for_each(|block| one(block, &mut w));
                w.close_array();
            }
        }
    }
    w.close_object();
    w.finish()
}

/// Writes one block as a value; a table as its rows, without the brackets.
fn one(block: &Block, w: &mut Writer) {
    match block {
        Block::Line { text, fields, .. } if fields.is_empty() => {
            w.open_object();
            w.key("text");
            w.string(text);
            w.close_object();
        }
        Block::Line { fields, .. } => {
            object(fields.iter().map(|(key, value)| (*key, value)), w);
        }
        Block::Record { name, fields, .. } => {
            object(fields.iter().map(|(key, value)| (shape::key(name, key), value)), w);
        }
        Block::Table { columns, rows, .. } => {
            for row in rows {
                object(columns.iter().map(|column| column.key).zip(row), w);
            }
        }
        Block::Text { text, .. } => w.string(text),
        Block::Dump { size, bytes, .. } => {
            w.open_object();
            w.key("bytes");
            w.number(*size);
            w.key("shown");
            w.number(bytes.len() as u64);
            w.key("hex");
            w.string(&show::digits(bytes));
            w.key("text");
            w.string(&String::from_utf8_lossy(bytes));
            w.close_object();
        }
        Block::Nothing { .. } => {}
    }
}

fn object<'a>(fields: impl Iterator<Item = (&'static str, &'a Value)>, w: &mut Writer) {
    w.open_object();
    for (key, field) in fields {
        w.key(key);
        value(field, w);
    }
    w.close_object();
}

fn value(of: &Value, w: &mut Writer) {
    match of {
        Value::None | Value::Unsaid => w.null(),
        Value::Number(number) => w.number(*number),
        Value::Text(text) if text.is_empty() => w.null(),
        Value::Text(text) => w.string(text),
        Value::Word(word) => w.string(word),
        Value::Flag(is_so) => w.boolean(*is_so),
        Value::As { value: inner, .. } => value(inner, w),
        Value::Micros(micros) => w.number(*micros),
        Value::Time(wall) => w.string(&wall.rfc3339()),
        Value::Numbers(numbers) => {
            w.open_array();
            numbers.iter().for_each(|number| w.number(*number));
            w.close_array();
        }
        Value::Texts(texts) => {
            w.open_array();
            texts.iter().for_each(|text| w.string(text));
            w.close_array();
        }
    }
}
