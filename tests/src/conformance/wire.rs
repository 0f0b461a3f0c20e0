//! A frame that a line describes: made of its words, compared with them, and shown. Bodies are made
//! and read here by the text of docs/protocol.md alone, so that what no library would send can be
//! sent, and so that a mistake of the crate `protocol` is noticed.

use super::Side;
use super::value::Variables;
use crate::script::words::Token;
use protocol::errors::{ERRORS, ErrorRow};
use protocol::header::{FIELDS, Header};
use protocol::kinds::{BodyKind, KINDS, Kind, KindRow};
use protocol::limits::{HEADER_BYTES, INTERVENTION};
use protocol::show;
use std::collections::BTreeMap;

/// The byte of a body that a line gives as `fill=SIZE`.
const FILL: u8 = b'x';
/// The keys of a body and their values, in order.
type Keys = Vec<(String, String)>;

/// Most bytes of a frame that a report shows.
const SHOWN_MAX: usize = 512;

/// A frame as it came.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    pub(super) head: Header,
    pub(super) body: Vec<u8>,
}

impl Wire {
    /// In words, and in hex.
    pub(super) fn shown(&self) -> String {
        let mut bytes = self.head.write().to_vec();
        bytes.extend_from_slice(&self.body);
        bytes.truncate(SHOWN_MAX);
        let words = show::one_line(show::line(&self.head, &self.body));
        format!("{words}\n{}", show::hex(&bytes))
    }
}

/// What a line says of a frame.
pub(super) struct Words<'a> {
    /// `None` = `frame`: any numbers, and a body of bytes.
    row: Option<&'static KindRow>,
    error: Option<&'static ErrorRow>,
    pairs: Vec<(&'a str, String)>,
    text: Option<Vec<u8>>,
    /// The whole body, as it is.
    raw: Option<Vec<u8>>,
    /// Whether keys may be there that the line does not name.
    is_open: bool,
}

impl<'a> Words<'a> {
    /// Reads the words behind `send` or `expect`.
    ///
    /// # Errors
    /// They describe no frame.
    pub(super) fn read(words: &'a [Token], all: &Variables) -> Result<Self, String> {
        let [Token::Word(kind), rest @ ..] = words else {
            return Err("the kind of a frame comes first".to_owned());
        };
        let row = KINDS.iter().find(|row| row.name == *kind);
        if row.is_none() && kind != "frame" {
            return Err(format!("'{kind}' is no kind of frame"));
        }
        let (error, pairs) = (None, Vec::new());
        let mut read = Self { row, error, pairs, text: None, raw: None, is_open: false };
        for word in rest {
            match word {
                Token::Word(word) if word == "..." => read.is_open = true,
                Token::Word(word) => {
                    let name = all.fill(word)?;
                    let known = ERRORS.iter().find(|row| row.name == name);
                    let is_error = row.is_some_and(|row| row.kind == Kind::Error);
                    read.error = known.filter(|_| is_error);
                    read.error.ok_or_else(|| format!("'{name}' is no word of a frame"))?;
                }
                Token::Pair(key, value) if key == "raw" => read.raw = Some(filled(value, all)?),
                Token::Pair(key, value) => {
                    let value = String::from_utf8(value.clone()).map_err(|e| e.to_string())?;
                    read.pairs.push((key, value));
                }
                Token::Quoted(text) => read.text = Some(filled(text, all)?),
            }
        }
        Ok(read)
    }

    fn has_keys(&self) -> bool {
        let is_message = |row: &KindRow| matches!(row.kind, Kind::Publish | Kind::Message);
        self.row.is_some_and(|row| row.body == BodyKind::Lines || is_message(row))
    }

    /// The field of the header that a name means.
    fn field<'n>(&self, name: &'n str) -> Option<&'n str> {
        if let Some(name) = name.strip_prefix("head.") {
            return Some(name);
        }
        let is_body =
            self.row.is_some_and(|row| row.body == BodyKind::Lines && row.kind != Kind::Error);
        FIELDS.iter().find(|field| field.name == name && !is_body).map(|_| name)
    }

    /// The bytes of the frame.
    ///
    /// # Errors
    /// A variable has no value, or a field can't have its value.
    pub(super) fn bytes(&self, all: &Variables) -> Result<Vec<u8>, String> {
        let command = self.row.map_or(0, |row| row.number);
        let mut head = Header { command, ..Header::default() };
        let mut keys: Vec<(String, String)> = Vec::new();
        let (mut raw, mut len) = (self.raw.clone(), None);
        if let Some(row) = self.error {
            head.error = row.number;
            keys.push(("code".into(), row.number.to_string()));
            keys.push(("name".into(), row.name.into()));
            keys.push(("whose".into(), row.whose.to_string()));
            keys.push(("ran".into(), row.ran.to_string()));
            keys.push(("advice".into(), row.advice.into()));
        }
        for (name, value) in &self.pairs {
            let value = all.fill(value)?;
            match (*name, self.field(name)) {
                ("fill", _) => {
                    let size = value.parse().map_err(|_| format!("fill={value} is no size"))?;
                    raw = Some(vec![FILL; size]);
                }
                (_, Some("len")) => len = Some(value.parse().map_err(|_| "len is no number")?),
                (_, Some(field)) => set(&mut head, field, &value)?,
                (key, None) if self.has_keys() => {
                    match keys.iter_mut().find(|(known, _)| known == key && self.error.is_some()) {
                        Some((_, known)) => *known = value,
                        None => keys.push((key.to_owned(), value)),
                    }
                }
                (key, None) => return Err(format!("the frame has no field '{key}'")),
            }
        }
        keys.retain(|(_, value)| value != "absent");
        let text = self.text.clone().unwrap_or_default();
        let is_intervention = self.error.is_some_and(|row| row.number == -1);
        let body = match raw {
            Some(raw) => raw,
            None if is_intervention => INTERVENTION.to_vec(),
            None if self.has_keys() => lines(&keys, &text, self.text.is_some()),
            None => text,
        };
        head.len = len.unwrap_or_else(|| u32::try_from(body.len()).unwrap_or(u32::MAX));
        let mut bytes = head.write().to_vec();
        bytes.extend(body);
        Ok(bytes)
    }

    /// Compares the frame with one that came.
    ///
    /// # Errors
    /// What is different.
    pub(super) fn compare(
        &self,
        came: &Wire,
        side: Side,
        all: &mut Variables,
    ) -> Result<(), String> {
        let row = self.row.ok_or("only a kind of frame can be expected")?;
        if came.head.command != row.number {
            return Err(format!("it is no {} frame", row.name));
        }
        let mut wanted: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut named: Vec<&str> = vec!["len", "command"];
        let mut fill = None;
        for (name, value) in &self.pairs {
            match self.field(name) {
                Some(field) => {
                    let is = get(&came.head, field)?;
                    all.compare(value, &is).map_err(|why| format!("{field} is {why}"))?;
                    named.push(field);
                }
                None if *name == "fill" => fill = Some(all.fill(value)?),
                None => wanted.entry(name).or_default().push(value),
            }
        }
        let code = self.error.map_or(0, |row| row.number);
        let defaults = Header { error: code, ..Header::default() };
        // The broker knows these of the transaction.
        let is_answer = side == Side::Worker && row.kind == Kind::Data;
        let free: &[&str] = match is_answer {
            true => &["sequence", "workerid", "trace_id", "span_id"],
            false => &[],
        };
        for field in FIELDS.iter().map(|field| field.name) {
            if !named.contains(&field) && !free.contains(&field) {
                let (is, should) = (get(&came.head, field)?, get(&defaults, field)?);
                if is != should {
                    return Err(format!("{field} is {is}, expected {should}"));
                }
            }
        }
        let mut text: &[u8] = &came.body;
        if self.has_keys() {
            let (keys, rest) = keys(&came.body)?;
            self.compare_keys(&wanted, &keys, all)?;
            text = rest;
        } else if let Some(name) = wanted.keys().next() {
            return Err(format!("a {} frame has no '{name}'", row.name));
        }
        if let Some(size) = fill {
            let is_right = text.len().to_string() == size && text.iter().all(|byte| *byte == FILL);
            return is_right.then_some(()).ok_or_else(|| format!("the body is not fill={size}"));
        }
        match &self.text {
            Some(wanted) if wanted == b"_" => Ok(()),
            Some(wanted) if wanted == text => Ok(()),
            None if text.is_empty() || self.is_open => Ok(()),
            wanted => {
                let wanted = words_of(wanted.as_deref().unwrap_or_default());
                Err(format!("the body is {}, expected {wanted}", words_of(text)))
            }
        }
    }

    fn compare_keys(
        &self,
        wanted: &BTreeMap<&str, Vec<&str>>,
        came: &[(String, String)],
        all: &mut Variables,
    ) -> Result<(), String> {
        for (key, wanted) in wanted {
            let values = came.iter().filter(|(known, _)| known == key).map(|(_, value)| value);
            let values: Vec<&String> = values.collect();
            let is_optional = |word: &&str| word.split('|').any(|one| one == "absent");
            if values.is_empty() && wanted.iter().all(is_optional) {
                continue;
            }
            if values.len() != wanted.len() {
                let (count, expected) = (values.len(), wanted.len());
                return Err(format!("the key '{key}' is there {count} times, not {expected}"));
            }
            for (wanted, value) in wanted.iter().zip(values) {
                all.compare(wanted, value).map_err(|why| format!("{key} is {why}"))?;
            }
        }
        match came.iter().find(|(key, _)| !wanted.contains_key(key.as_str())) {
            Some((key, value)) if !self.is_open => {
                Err(format!("the key '{key}' is there, with the value '{value}'"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// A text with the variables in it.
pub(super) fn filled(text: &[u8], all: &Variables) -> Result<Vec<u8>, String> {
    match std::str::from_utf8(text) {
        Ok(text) if text.contains("${") => Ok(all.fill(text)?.into_bytes()),
        Ok(_) | Err(_) => Ok(text.to_vec()),
    }
}

/// Bytes as a report shows them.
pub(super) fn words_of(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.len() < 200 => format!("{text:?}"),
        Ok(_) => format!("{} bytes of text", bytes.len()),
        Err(_) => format!("hex {}", show::digits(&bytes[..bytes.len().min(64)])),
    }
}

/// The body of these lines; a value is escaped.
fn lines(keys: &[(String, String)], text: &[u8], has_text: bool) -> Vec<u8> {
    let mut out = String::new();
    for (key, value) in keys {
        let value = value.replace('\\', "\\\\").replace('\n', "\\n");
        out += &format!("{key} {value}\n");
    }
    let mut out = out.into_bytes();
    if has_text {
        out.push(b'\n');
        out.extend_from_slice(text);
    }
    out
}

/// The keys and values of a body, and what follows the empty line.
fn keys(body: &[u8]) -> Result<(Keys, &[u8]), String> {
    let mut keys = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n');
        let end = end.ok_or("the last line of the body has no end")?;
        let (line, after) = (&rest[..end], &rest[end + 1..]);
        rest = after;
        if line.is_empty() {
            return Ok((keys, rest));
        }
        let line = std::str::from_utf8(line).map_err(|_| "a line of the body is not UTF-8")?;
        let (key, value) = line.split_once(' ').unwrap_or((line, ""));
        let value = value.replace("\\\\", "\0").replace("\\n", "\n").replace('\0', "\\");
        keys.push((key.to_owned(), value));
    }
    Ok((keys, rest))
}

/// The value of a field of the header.
fn get(head: &Header, field: &str) -> Result<String, String> {
    let field = FIELDS.iter().find(|known| known.name == field);
    let field = field.ok_or("the header has no such field")?;
    let bytes = head.write();
    let bytes = &bytes[field.offset..field.offset + field.width];
    if field.name == "trace_id" {
        let is_zero = bytes.iter().all(|byte| *byte == 0);
        return Ok(if is_zero { "0".to_owned() } else { show::digits(bytes) });
    }
    if field.name == "error" {
        return Ok(head.error.to_string());
    }
    Ok(bytes.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte)).to_string())
}

/// Sets a field of the header.
fn set(head: &mut Header, field: &str, value: &str) -> Result<(), String> {
    let wrong = || format!("the field '{field}' can't be {value}");
    let known = FIELDS.iter().find(|known| known.name == field).ok_or_else(wrong)?;
    let bytes = match field {
        "trace_id" => {
            let digits = format!("{value:0>32}");
            protocol::proof::from_digits(&digits).ok_or_else(wrong)?
        }
        "error" => value.parse::<i16>().map_err(|_| wrong())?.to_be_bytes().to_vec(),
        _ => value.parse::<u64>().map_err(|_| wrong())?.to_be_bytes().to_vec(),
    };
    let from = bytes.len().checked_sub(known.width).ok_or_else(wrong)?;
    if bytes[..from].iter().any(|byte| *byte != 0) {
        return Err(wrong());
    }
    let mut all: [u8; HEADER_BYTES] = head.write();
    all[known.offset..known.offset + known.width].copy_from_slice(&bytes[from..]);
    *head = Header::read(&all);
    Ok(())
}
