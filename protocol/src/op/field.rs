//! What a part of an answer is made of: its form, its fields, and the columns in which a list shows
//! them. `shape` is the table of all parts.

/// The JSON type of a part of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `true`: the command was carried out, and there is nothing more to say.
    True,
    /// An object with these fields.
    Object,
    /// An array of objects, also if it has one or none.
    Array,
    /// A string, usually of several lines.
    Text,
}

/// The JSON type of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// A string that is not empty.
    Text,
    /// A string of bytes from a peer or a program; it may be empty.
    Raw,
    /// One of these strings.
    Word(&'static [&'static str]),
    /// A whole number, 0 or more.
    Number,
    /// `true` or `false`.
    Flag,
    /// A span of time in microseconds; the key ends with `_us`.
    Micros,
    /// A string: a wall-clock time as in RFC 3339.
    Time,
    /// An array of numbers.
    Numbers,
    /// An array of strings.
    Texts,
    /// A setting's value: a number, or `true` and `false` for a switch.
    Value,
}

/// The edge at which values of a column are aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// The left edge, for text.
    Left,
    /// The right edge, for numbers.
    Right,
}

/// A column of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// The heading in text.
    pub title: &'static str,
    /// The key in JSON.
    pub key: &'static str,
    /// Least width in text, in columns of a terminal.
    pub width: usize,
    /// The edge at which the values stand.
    pub align: Align,
}

/// A field of a part.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The key in JSON.
    pub key: &'static str,
    /// The name in the text of a record; often the manual's, and then not equal to `key`.
    pub label: &'static str,
    /// The JSON type.
    pub kind: Type,
    /// Whether it may be null, because there is no value or it is not known.
    pub maybe: bool,
    /// The meaning, for the schema.
    pub text: &'static str,
    /// The column that it has in the table of a list; without a title, text does not show it.
    pub column: Column,
}

/// A part of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// The key in JSON.
    pub name: &'static str,
    /// The JSON type of the part.
    pub form: Form,
    /// The fields of the object, or of each object of the array; empty for other forms.
    pub fields: &'static [Field],
    /// Whether every answer to the command has this part.
    pub always: bool,
}

pub(super) const fn field(key: &'static str, kind: Type, text: &'static str) -> Field {
    let column = Column { title: "", key, width: 0, align: Align::Left };
    Field { key, label: key, kind, maybe: false, text, column }
}

impl Field {
    pub(super) const fn maybe(self) -> Self {
        Self { maybe: true, ..self }
    }

    /// Sets the name that the field has in the text of a record.
    pub(super) const fn label(self, label: &'static str) -> Self {
        Self { label, ..self }
    }

    pub(super) const fn column(self, title: &'static str, width: usize) -> Self {
        let align = Align::Right;
        Self { column: Column { title, width, align, ..self.column }, ..self }
    }

    /// The same, where the title is the key.
    pub(super) const fn wide(self, width: usize) -> Self {
        self.column(self.key, width)
    }

    pub(super) const fn left(self, title: &'static str, width: usize) -> Self {
        Self { column: Column { title, width, ..self.column }, ..self }
    }
}

pub(super) const fn object(name: &'static str, fields: &'static [Field]) -> Shape {
    Shape { name, form: Form::Object, fields, always: true }
}

pub(super) const fn array(name: &'static str, fields: &'static [Field]) -> Shape {
    Shape { name, form: Form::Array, fields, always: true }
}

pub(super) const fn text(name: &'static str) -> Shape {
    Shape { name, form: Form::Text, fields: &[], always: true }
}

impl Shape {
    pub(super) const fn sometimes(self) -> Self {
        Self { always: false, ..self }
    }
}
