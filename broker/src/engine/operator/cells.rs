//! The cells and tables of answers.

use protocol::op::shape;
use protocol::{Block, OpReply, Value};

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

/// An answer that is one table without a heading. What its columns are, `protocol::op::shape` says.
pub(crate) fn table(name: &'static str, rows: Vec<Vec<Value>>) -> OpReply {
    let columns = shape::columns(name);
    OpReply::block(Block::Table { name, title: String::new(), columns, rows })
}

/// A value that text leaves blank and JSON has.
pub(crate) fn blank(value: Value) -> Value {
    Value::shown("", value)
}
