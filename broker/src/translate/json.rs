//! The JSON view of an operator's answer: one object with one key for each name of a block, as
//! `protocol::op::shape` describes it. The values are written to memory one by one; there is no
//! tree of them.

use protocol::op::reply::{Block, OpReply, Value};
use protocol::op::shape::{self, Form};
use protocol::show;
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::ser::{CharEscape, CompactFormatter, Formatter};
use std::io;

/// The answer as one JSON object, without blanks and with its keys in the order of the blocks.
pub(super) fn render(reply: &OpReply) -> Vec<u8> {
    let mut out = Vec::new();
    let mut to = serde_json::Serializer::with_formatter(&mut out, Visible);
    // It can't fail: memory takes all bytes, and each key is a string.
    let _ = Answer(&reply.blocks).serialize(&mut to);
    out
}

/// All blocks of an answer.
struct Answer<'a>(&'a [Block]);

impl Serialize for Answer<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self(blocks) = *self;
        let names = blocks.iter().map(Block::name).enumerate();
        let first = names.filter(|(index, name)| {
            !blocks[..*index].iter().any(|earlier| earlier.name() == *name)
        });
        to.collect_map(first.map(|(_, name)| (name, Part { blocks, name })))
    }
}

/// The blocks of one name, as one value.
struct Part<'a> {
    /// All blocks of the answer.
    blocks: &'a [Block],
    name: &'static str,
}

impl Serialize for Part<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut same = self.blocks.iter().filter(|block| block.name() == self.name);
        let entries = same.clone().flat_map(entries);
        match (shape::form(self.name), same.next(), same.next()) {
            (Some(Form::True), ..) => to.serialize_bool(true),
            (Some(Form::Object | Form::Text), Some(only), None) => Entry(only, 0).serialize(to),
            // The table has no such part, but an answer never has two of these.
            (
                None,
                Some(only @ (Block::Record { .. } | Block::Text { .. } | Block::Dump { .. })),
                None,
            ) => Entry(only, 0).serialize(to),
            (None | Some(Form::Array | Form::Object | Form::Text), ..) => to.collect_seq(entries),
        }
    }
}

/// What an array has of this block: the rows of a table, another block as a whole.
fn entries(block: &Block) -> impl Iterator<Item = Entry<'_>> {
    let count = match block {
        Block::Table { rows, .. } => rows.len(),
        Block::Nothing { .. } => 0,
        Block::Line { .. } | Block::Record { .. } | Block::Text { .. } | Block::Dump { .. } => 1,
    };
    (0..count).map(move |row| Entry(block, row))
}

/// A row of a table by its number, or another block as a whole.
struct Entry<'a>(&'a Block, usize);

impl Serialize for Entry<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self(block, row) = *self;
        match block {
            Block::Line { text, fields, .. } if fields.is_empty() => {
                to.collect_map([("text", text)])
            }
            Block::Line { fields, .. } => {
                to.collect_map(fields.iter().map(|(key, value)| (key, Cell(value))))
            }
            Block::Record { name, fields, .. } => to.collect_map(
                fields.iter().map(|(key, value)| (shape::key(name, key), Cell(value))),
            ),
            Block::Table { columns, rows, .. } => {
                let keys = columns.iter().map(|column| column.key);
                to.collect_map(keys.zip(rows.get(row).into_iter().flatten().map(Cell)))
            }
            Block::Text { text, .. } => to.serialize_str(text),
            Block::Dump { size, bytes, .. } => {
                let mut map = to.serialize_map(None)?;
                map.serialize_entry("bytes", size)?;
                map.serialize_entry("shown", &bytes.len())?;
                map.serialize_entry("hex", &show::digits(bytes))?;
                map.serialize_entry("text", &String::from_utf8_lossy(bytes))?;
                map.end()
            }
            Block::Nothing { .. } => to.serialize_unit(),
        }
    }
}

/// One value of a row or a record.
struct Cell<'a>(&'a Value);

impl Serialize for Cell<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::None | Value::Unsaid => to.serialize_unit(),
            Value::Number(number) => to.serialize_i128(*number),
            Value::Text(text) if text.is_empty() => to.serialize_unit(),
            Value::Text(text) => to.serialize_str(text),
            Value::Word(word) => to.serialize_str(word),
            Value::Flag(is_so) => to.serialize_bool(*is_so),
            Value::As { value, .. } => Cell(value).serialize(to),
            Value::Micros(micros) => to.serialize_u64(*micros),
            Value::Time(wall) => to.serialize_str(&wall.rfc3339()),
            Value::Numbers(numbers) => to.collect_seq(numbers),
            Value::Texts(texts) => to.collect_seq(texts),
        }
    }
}

/// Writes as [`CompactFormatter`] does, with hidden characters escaped, so that a reader sees them.
/// JSON requires that for controls below U+0020 only; those come as `write_char_escape`.
struct Visible;

impl Formatter for Visible {
    fn write_string_fragment<W>(&mut self, to: &mut W, text: &str) -> io::Result<()>
    where
        W: ?Sized + io::Write,
    {
        to.write_all(&show::log_line(text.as_bytes(), true))
    }

    fn write_char_escape<W>(&mut self, to: &mut W, escape: CharEscape) -> io::Result<()>
    where
        W: ?Sized + io::Write,
    {
        // These two have no short form, as in the log.
        let escape = match escape {
            CharEscape::Backspace => CharEscape::AsciiControl(0x08),
            CharEscape::FormFeed => CharEscape::AsciiControl(0x0c),
            escape => escape,
        };
        CompactFormatter.write_char_escape(to, escape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use protocol::op::reply::{Align, Column};
    use protocol::time::Wall;

    fn json(blocks: Vec<Block>) -> String {
        String::from_utf8(render(&OpReply { blocks })).unwrap()
    }

    fn line(name: &'static str, text: &str, fields: Vec<(&'static str, Value)>) -> Block {
        Block::Line { name, text: text.into(), fields }
    }

    fn table(rows: Vec<Vec<Value>>) -> Block {
        let column = |key| Column { title: "", key, width: 0, align: Align::Left };
        let columns = vec![column("service"), column("id")];
        Block::Table { name: "services", title: String::new(), columns, rows }
    }

    /// A value as the only field of a line, without the braces around it.
    fn cell(value: Value) -> String {
        let json = json(vec![line("a", "", vec![("b", value)])]);
        json.strip_prefix(r#"{"a":[{"b":"#).unwrap().strip_suffix("}]}").unwrap().to_owned()
    }

    fn text(text: &str) -> String {
        cell(Value::Text(text.to_owned()))
    }

    #[test]
    fn strings_are_escaped() {
        assert_eq!(text("a\"b\\c/d"), r#""a\"b\\c/d""#);
        assert_eq!(text("\n\r\t\0\u{1b}\u{7f}\u{9f}"), r#""\n\r\t\u0000\u001b\u007f\u009f""#);
        assert_eq!(text("a\u{8}b\u{c}"), r#""a\u0008b\u000c""#);
        assert_eq!(text("é 日本 😀"), "\"é 日本 😀\"");
        assert_eq!(text("é\u{2028}b\u{202e}\u{e0001}"), r#""é\u2028b\u202e\udb40\udc01""#);
    }

    #[test]
    fn each_value_has_its_form() {
        assert_eq!(cell(Value::None), "null");
        assert_eq!(cell(Value::Unsaid), "null");
        assert_eq!(text(""), "null");
        assert_eq!(cell(Value::Number(-7)), "-7");
        assert_eq!(cell(Value::Number(u64::MAX.into())), "18446744073709551615");
        assert_eq!(cell(Value::Word("idle")), r#""idle""#);
        assert_eq!(cell(Value::on_off(true)), "true");
        assert_eq!(cell(Value::maybe(0)), "null");
        assert_eq!(cell(Value::Micros(1_204_000)), "1204000");
        let wall = Wall { epoch_ms: 951_868_799_999, offset_secs: 3600 };
        assert_eq!(cell(Value::Time(wall)), r#""2000-02-29T23:59:59.999Z""#);
        assert_eq!(cell(Value::Numbers(vec![0, 3])), "[0,3]");
        assert_eq!(cell(Value::Texts(vec!["one".into(), String::new()])), r#"["one",""]"#);
        assert_eq!(cell(Value::Texts(vec![])), "[]");
    }

    #[test]
    fn a_table_is_an_array_of_its_rows() {
        let row = |name: &str, id| vec![Value::Text(name.into()), Value::Number(id)];
        let rows = vec![row("eat", 3), row("echo", 2)];
        let whole = r#"{"services":[{"service":"eat","id":3},{"service":"echo","id":2}]}"#;
        assert_eq!(json(vec![table(rows)]), whole);
        let halves = vec![
            table(vec![row("eat", 3)]),
            line("note2", "between", vec![]),
            table(vec![row("echo", 2)]),
        ];
        let note = r#","note2":[{"text":"between"}]}"#;
        assert_eq!(json(halves), whole.replace("]}", "]") + note, "one name is one array");
        assert_eq!(json(vec![table(vec![])]), r#"{"services":[]}"#);
        assert_eq!(json(vec![Block::Nothing { name: "services" }]), r#"{"services":[]}"#);
    }

    #[test]
    fn the_fields_of_a_record_have_the_names_of_its_shape() {
        let fields = vec![("id", Value::Number(1)), ("name", Value::Text("echo".into()))];
        let page = Block::Record { name: "worker", prefix: "worker->", width: 0, fields };
        assert_eq!(json(vec![page]), r#"{"worker":{"worker":1,"service":"echo"}}"#);
        let fields = vec![("configfile", Value::None), ("ServiceList", Value::Number(3))];
        let page = Block::Record { name: "isdData", prefix: "isdData.", width: 24, fields };
        assert_eq!(json(vec![page]), r#"{"isdData":{"configfile":null,"ServiceList":3}}"#);
    }

    #[test]
    fn lines_of_one_name_are_one_array() {
        assert_eq!(json(vec![]), "{}");
        assert_eq!(json(OpReply::ok().blocks), r#"{"ok":true}"#);
        let paused = |id| line("paused", "", vec![("id", Value::Number(id))]);
        assert_eq!(json(vec![paused(2), paused(1)]), r#"{"paused":[{"id":2},{"id":1}]}"#);
        let plain = line("events", "nothing\nwas \u{7}done", vec![]);
        assert_eq!(json(vec![plain]), r#"{"events":[{"text":"nothing\nwas \u0007done"}]}"#);
    }

    #[test]
    fn text_and_dumps_stand_alone() {
        let help = Block::Text { name: "help", text: "pause all\n".into() };
        assert_eq!(json(vec![help]), r#"{"help":"pause all\n"}"#);
        let dump = Block::Dump { name: "last", size: 9, bytes: Bytes::from_static(b"h\n\xff") };
        assert_eq!(
            json(vec![dump]),
            "{\"last\":{\"bytes\":9,\"shown\":3,\"hex\":\"680aff\",\"text\":\"h\\n\u{fffd}\"}}"
        );
    }
}
