//! Writes JSON: it places commas and escapes strings. There is no parser. `reply` decides what an
//! answer contains.

use crate::show;

/// Writes one JSON value into a string. The caller opens and closes objects and arrays; the writer
/// places commas and escapes.
#[derive(Debug, Default)]
pub struct Writer {
    out: String,
    /// Whether a comma precedes the next value or key.
    needs_comma: bool,
}

impl Writer {
    /// Opens an object; [`close_object`](Self::close_object) ends it.
    pub fn open_object(&mut self) {
        self.open('{');
    }

    /// Closes the innermost object.
    pub fn close_object(&mut self) {
        self.close('}');
    }

    /// Opens an array; [`close_array`](Self::close_array) ends it.
    pub fn open_array(&mut self) {
        self.open('[');
    }

    /// Closes the innermost array.
    pub fn close_array(&mut self) {
        self.close(']');
    }

    /// Writes a key of an object; its value must follow.
    pub fn key(&mut self, key: &str) {
        self.string(key);
        self.out.push(':');
        self.needs_comma = false;
    }

    /// Writes a string, escaped.
    pub fn string(&mut self, text: &str) {
        self.comma();
        escape(text, &mut self.out);
    }

    /// Writes a whole number.
    pub fn number(&mut self, number: impl Into<i128>) {
        self.comma();
        self.out.push_str(&number.into().to_string());
    }

    /// Writes `true` or `false`.
    pub fn boolean(&mut self, value: bool) {
        self.comma();
        self.out.push_str(if value { "true" } else { "false" });
    }

    /// Writes `null`.
    pub fn null(&mut self) {
        self.comma();
        self.out.push_str("null");
    }

    /// The JSON text written so far.
    pub fn finish(self) -> String {
        self.out
    }

    fn open(&mut self, mark: char) {
        self.comma();
        self.out.push(mark);
        self.needs_comma = false;
    }

    fn close(&mut self, mark: char) {
        self.out.push(mark);
        self.needs_comma = true;
    }

    fn comma(&mut self) {
        if self.needs_comma {
            self.out.push(',');
        }
        self.needs_comma = true;
    }
}

/// Appends a text as a JSON string, with its quotation marks.
pub fn escape(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // JSON requires this for control characters; other hidden characters are escaped so
            // that a reader sees them.
            c if show::is_hidden(c) => show::json_escape(c, out),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(text: &str) -> String {
        let mut out = String::new();
        escape(text, &mut out);
        out
    }

    #[test]
    fn strings_are_escaped() {
        assert_eq!(escaped(""), "\"\"");
        assert_eq!(escaped("a\"b\\c/d"), r#""a\"b\\c/d""#);
        assert_eq!(escaped("\n\r\t\0\u{1b}\u{7f}\u{9f}"), r#""\n\r\t\u0000\u001b\u007f\u009f""#);
        assert_eq!(escaped("é 日本 😀"), "\"é 日本 😀\"");
        assert_eq!(escaped("\u{2028}"), r#""\u2028""#);
    }

    #[test]
    fn commas_stand_between_values_only() {
        let mut w = Writer::default();
        w.open_object();
        w.key("a");
        w.open_array();
        w.number(1);
        w.number(u64::MAX);
        w.open_object();
        w.close_object();
        w.close_array();
        w.key("b");
        w.null();
        w.key("c");
        w.boolean(true);
        w.close_object();
        assert_eq!(w.finish(), r#"{"a":[1,18446744073709551615,{}],"b":null,"c":true}"#);
    }
}
