//! How a key of a control body is read and written, and what the documents say about it. The table
//! of `kinds` names for each key whether it must be there ([`needed`], [`or`], …), and the form of
//! its value ([`Number`], [`Text`], …).

use crate::lines::{BodyError, Lines, number};
use crate::names::{HostName, ServiceName};
use crate::proof::{MAC_BYTES, from_digits};
use crate::show;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Most bytes of a wrong word that an error shows.
const SHOWN_MAX: usize = 60;

/// The lines of a body that hold one field of its type.
pub(crate) trait Keys<T> {
    fn read(&self, lines: &Lines, key: &str) -> Result<T, BodyError>;
    fn write(&self, value: &T, key: &str, lines: Lines) -> Lines;
    /// For documents: the key, the form of its value, and what its absence means.
    fn about(&self, key: &str) -> [String; 3];
}

/// The form of a value: how a word of a body becomes a `T`, and a `T` a word.
pub(crate) trait Form<T> {
    fn read(&self, key: &str, word: &str) -> Result<T, BodyError>;
    fn write(&self, value: &T) -> impl Display;
    fn about(&self) -> String;
}

/// A key with one value.
pub(crate) struct One<F, T> {
    form: F,
    /// What its absence means; `None` = the body is refused.
    default: Option<T>,
    /// Whether it is left out where its absence means the same.
    is_left_out: bool,
}

/// A key without which the body is refused.
pub(crate) const fn needed<F, T>(form: F) -> One<F, T> {
    One { form, default: None, is_left_out: false }
}

/// A key that is always written, and whose absence means this value.
pub(crate) const fn or<F, T>(form: F, default: T) -> One<F, T> {
    One { form, default: Some(default), is_left_out: false }
}

/// A key that is written unless it has this value, which is also what its absence means.
pub(crate) const fn unless<F, T>(form: F, default: T) -> One<F, T> {
    One { form, default: Some(default), is_left_out: true }
}

impl<T: Clone + PartialEq, F: Form<T>> Keys<T> for One<F, T> {
    fn read(&self, lines: &Lines, key: &str) -> Result<T, BodyError> {
        match (lines.get(key), &self.default) {
            (Some(word), _) => self.form.read(key, word),
            (None, Some(default)) => Ok(default.clone()),
            // Names the key that is missing.
            (None, None) => self.form.read(key, lines.need(key)?),
        }
    }

    fn write(&self, value: &T, key: &str, lines: Lines) -> Lines {
        let is_left_out = self.is_left_out && self.default.as_ref() == Some(value);
        if is_left_out { lines } else { lines.with(key, self.form.write(value)) }
    }

    fn about(&self, key: &str) -> [String; 3] {
        let absent = self.default.as_ref().map(|value| self.form.write(value).to_string());
        let absent = absent.map(|word| if word.is_empty() { "empty".into() } else { word });
        [format!("`{key}`"), self.form.about(), absent.unwrap_or_else(|| "refused".into())]
    }
}

/// A key that may be absent.
pub(crate) struct Maybe<F>(pub F);

impl<T, F: Form<T>> Keys<Option<T>> for Maybe<F> {
    fn read(&self, lines: &Lines, key: &str) -> Result<Option<T>, BodyError> {
        lines.get(key).map(|word| self.0.read(key, word)).transpose()
    }

    fn write(&self, value: &Option<T>, key: &str, lines: Lines) -> Lines {
        lines.with_each(key, value.iter().map(|value| self.0.write(value)))
    }

    fn about(&self, key: &str) -> [String; 3] {
        [format!("`{key}`"), self.0.about(), "none".into()]
    }
}

/// A key with a line for each value.
pub(crate) struct Each<F>(pub F);

impl<T, F: Form<T>> Keys<Vec<T>> for Each<F> {
    fn read(&self, lines: &Lines, key: &str) -> Result<Vec<T>, BodyError> {
        lines.all(key).map(|word| self.0.read(key, word)).collect()
    }

    fn write(&self, values: &Vec<T>, key: &str, lines: Lines) -> Lines {
        lines.with_each(key, values.iter().map(|value| self.0.write(value)))
    }

    fn about(&self, key: &str) -> [String; 3] {
        [format!("`{key}`, a line for each"), self.0.about(), "none".into()]
    }
}

/// The text after the empty line.
pub(crate) struct FreeText;

impl Keys<String> for FreeText {
    fn read(&self, lines: &Lines, _: &str) -> Result<String, BodyError> {
        Ok(lines.text().to_owned())
    }

    fn write(&self, value: &String, _: &str, lines: Lines) -> Lines {
        lines.with_text(value.as_str())
    }

    fn about(&self, _: &str) -> [String; 3] {
        ["after an empty line".into(), "text".into(), "empty".into()]
    }
}

/// A number of this range; the error and the documents add the note.
pub(crate) struct In<T>(pub RangeInclusive<T>, pub &'static str);
/// From so many to so many bytes, as hexadecimal digits.
pub(crate) struct Hex(pub usize, pub usize);
/// A whole number, as its type has it.
pub(crate) struct Number;
/// The words of a type of its own.
pub(crate) struct Word;
/// Any text.
pub(crate) struct Text;
/// Text of a peer that operators will see: without hidden characters, at most 64 characters.
pub(crate) struct Shown;
/// `yes` or `no`, nothing else.
pub(crate) struct YesNo;
/// `yes`; all else is no.
pub(crate) struct Yes;
/// A number; 0 is no.
pub(crate) struct Flag;
/// A proof or a signature, as hexadecimal digits.
pub(crate) struct Mac;

impl<T: FromStr + Display> Form<T> for Number {
    fn read(&self, key: &str, word: &str) -> Result<T, BodyError> {
        number(key, word)
    }

    fn write(&self, value: &T) -> impl Display {
        value
    }

    fn about(&self) -> String {
        "number".into()
    }
}

impl<T: FromStr + Display + PartialOrd> Form<T> for In<T> {
    fn read(&self, key: &str, word: &str) -> Result<T, BodyError> {
        let value = number(key, word)?;
        if self.0.contains(&value) {
            return Ok(value);
        }
        Err(BodyError(format!("'{key} {value}' is out of range; {}", self.about())))
    }

    fn write(&self, value: &T) -> impl Display {
        value
    }

    fn about(&self) -> String {
        format!("{} to {}{}", self.0.start(), self.0.end(), self.1)
    }
}

impl Form<Vec<u8>> for Hex {
    fn read(&self, key: &str, word: &str) -> Result<Vec<u8>, BodyError> {
        let Self(least, most) = self;
        from_digits(word).filter(|bytes| (least..=most).contains(&&bytes.len())).ok_or_else(|| {
            BodyError(format!("'{key}' is not {least} to {most} bytes as lower-case hex"))
        })
    }

    fn write(&self, value: &Vec<u8>) -> impl Display {
        show::digits(value)
    }

    fn about(&self) -> String {
        format!("{} to {} bytes as hex", self.0, self.1)
    }
}

/// The error for a word that is none of those of its key.
pub(crate) fn is_not(key: &str, word: &str, meant: &str) -> BodyError {
    BodyError(format!("'{key} {}' is {meant}", show::brief(word, SHOWN_MAX)))
}

/// TABLE of forms without parameters: the form and its type, how documents call it, how it is read
/// and how it is written.
macro_rules! forms {
    ($($form:ty, $type:ty, $about:expr, |$key:pat_param, $word:pat_param| $read:expr,
        |$value:pat_param| $write:expr;)*) =>
    {$(
        impl crate::keys::Form<$type> for $form {
            fn read(&self, $key: &str, $word: &str) -> Result<$type, crate::lines::BodyError> {
                $read
            }

            fn write(&self, $value: &$type) -> impl std::fmt::Display {
                $write
            }

            fn about(&self) -> String {
                String::from($about)
            }
        }
    )*};
}
pub(crate) use forms;

fn name(why: impl Display) -> BodyError {
    BodyError(why.to_string())
}

fn yes_or_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

forms! {
    Word, ServiceName, "name", |_, word| ServiceName::new(word).map_err(name), |value| value;
    Word, HostName, "name", |_, word| HostName::new(word).map_err(name), |value| value;
    Text, String, "text", |_, word| Ok(word.to_owned()), |value| value;
    Shown, String, "text, the first 64 characters count",
        |_, word| Ok(word.chars().filter(|c| !show::is_hidden(*c)).take(64).collect()),
        |value| value;
    YesNo, bool, "`yes` or `no`",
        |key, word| match word {
            "yes" => Ok(true),
            "no" => Ok(false),
            other => Err(is_not(key, other, "neither 'yes' nor 'no'")),
        },
        |value| yes_or_no(*value);
    Yes, bool, "`yes` or `no`", |_, word| Ok(word == "yes"), |value| yes_or_no(*value);
    Flag, bool, "0 or 1", |key, word| number::<u8>(key, word).map(|number| number != 0),
        |value| u8::from(*value);
    Mac, [u8; MAC_BYTES], format!("{MAC_BYTES} bytes as hex"),
        |key, word| Hex(MAC_BYTES, MAC_BYTES).read(key, word)?.try_into().map_err(|_| {
            BodyError(format!("'{key}' has not {MAC_BYTES} bytes"))
        }),
        |value| show::digits(value);
    Mac, String, format!("{MAC_BYTES} bytes as hex"),
        |key, word| Hex(MAC_BYTES, MAC_BYTES).read(key, word).map(|_| word.to_owned()),
        |value| value;
}
