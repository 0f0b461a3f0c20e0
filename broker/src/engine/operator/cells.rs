//! The cells and columns of answers.

use protocol::op::reply::{Align, Block, Column, OpReply, Value};

/// A right-aligned column: its title in text, its key in JSON, its width.
pub(crate) const fn column(title: &'static str, key: &'static str, width: usize) -> Column {
    Column { title, key, width, align: Align::Right }
}

/// A left-aligned column.
pub(crate) const fn left(title: &'static str, key: &'static str, width: usize) -> Column {
    Column { title, key, width, align: Align::Left }
}

/// A column that only JSON has; its values are blank in text.
pub(crate) const fn unseen(key: &'static str) -> Column {
    Column { title: "", key, width: 0, align: Align::Left }
}

/// A number as a value.
pub(crate) fn number(count: impl TryInto<i128>) -> Value {
    count.try_into().map_or(Value::None, Value::Number)
}

/// A name or text as a value.
pub(crate) fn text(name: impl ToString) -> Value {
    Value::Text(name.to_string())
}

/// A switch as the manual's pages show it, `0` or `1`.
pub(crate) fn flag(is_set: bool) -> Value {
    Value::bit(is_set)
}

/// A switch as tables show it, `yes` or `no`.
pub(crate) const fn yes(is_so: bool) -> Value {
    Value::Flag(is_so)
}

/// An answer that is one table without a heading.
pub(crate) fn table(name: &'static str, columns: Vec<Column>, rows: Vec<Vec<Value>>) -> OpReply {
    OpReply::block(Block::Table { name, title: String::new(), columns, rows })
}

/// A value that text leaves blank and JSON has.
pub(crate) fn blank(value: Value) -> Value {
    Value::shown("", value)
}
