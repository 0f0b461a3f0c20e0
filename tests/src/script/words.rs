//! Splits a script line into plain words, `key=value`, and quoted text. A cursor takes them one by
//! one and reports which words were possible.

/// One word of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// A plain word.
    Word(String),
    /// `"…"`, with `\n`, `\"`, `\\` and `\xNN` understood.
    Quoted(Vec<u8>),
    /// `key=value`; the value may stand in quotation marks.
    Pair(String, Vec<u8>),
}

/// Splits a line into words.
///
/// # Errors
/// A quotation mark is not closed, or a backslash is followed by something unknown.
pub(crate) fn tokens(line: &str) -> Result<Vec<Token>, String> {
    let mut out = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('"') {
            let (text, left) = quoted(after)?;
            out.push(Token::Quoted(text));
            rest = left.trim_start();
            continue;
        }
        let end = rest.find([' ', '"']).unwrap_or(rest.len());
        let (word, left) = rest.split_at(end);
        match word.strip_suffix('=') {
            Some(key) if left.starts_with('"') => {
                let (text, left) = quoted(&left[1..])?;
                out.push(Token::Pair(key.to_owned(), text));
                rest = left.trim_start();
            }
            _ => {
                out.push(match word.split_once('=') {
                    Some((key, value)) if !key.is_empty() => {
                        Token::Pair(key.to_owned(), value.as_bytes().to_vec())
                    }
                    _ => Token::Word(word.to_owned()),
                });
                rest = left.trim_start();
            }
        }
    }
    Ok(out)
}

/// Returns the text up to the closing mark, and the rest of the line.
fn quoted(text: &str) -> Result<(Vec<u8>, &str), String> {
    let mut out = Vec::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((out, &text[at + 1..])),
            '\\' => match chars.next() {
                Some((_, 'n')) => out.push(b'\n'),
                Some((_, c @ ('"' | '\\'))) => out.push(c as u8),
                Some((at, 'x')) => {
                    let digits = text.get(at + 1..at + 3).unwrap_or_default();
                    let byte = u8::from_str_radix(digits, 16).map_err(|_| {
                        format!("'\\x{digits}' is not a byte; write \\x00 to \\xff")
                    })?;
                    out.push(byte);
                    chars.nth(1);
                }
                other => {
                    let other = other.map(|(_, c)| c.to_string()).unwrap_or_default();
                    return Err(format!(r#"unknown '\{other}'; known are \n \" \\ \xNN"#));
                }
            },
            c => out.extend(c.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    Err("a quotation mark is not closed".to_owned())
}

/// Bytes as a script writes them: quoted text, or `N bytes` if they are long or not readable.
pub(super) fn body(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 72;
    let is_fill = bytes.len() >= 10 && bytes.iter().all(|&b| b == b'x');
    if is_fill || bytes.len() > SHOWN_MAX {
        return format!("{} bytes", bytes.len());
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => quote(text),
        Err(_) => {
            let hex: String = bytes.iter().map(|b| format!("\\x{b:02x}")).collect();
            format!("\"{hex}\"")
        }
    }
}

/// Text in quotation marks.
pub(super) fn quote(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{text}\"")
}

/// Takes the words of one stimulus.
#[derive(Debug)]
pub(super) struct Cursor {
    tokens: Vec<Token>,
    /// The words taken so far, for errors.
    taken: String,
}

impl Cursor {
    /// A cursor over a line.
    ///
    /// # Errors
    /// The line can't be taken apart.
    pub(super) fn new(line: &str) -> Result<Self, String> {
        Ok(Self { tokens: tokens(line)?, taken: String::new() })
    }

    /// The next plain word.
    ///
    /// # Errors
    /// There is none; `known` says what could stand there.
    pub(super) fn word(&mut self, known: &str) -> Result<String, String> {
        match self.tokens.first() {
            Some(Token::Word(word)) => {
                let word = word.clone();
                self.tokens.remove(0);
                self.taken += &word;
                self.taken.push(' ');
                Ok(word)
            }
            Some(_) | None => Err(format!("after '{}' stands {known}", self.taken.trim_end())),
        }
    }

    /// Takes the next word if it is this one.
    pub(super) fn is(&mut self, wanted: &str) -> bool {
        let is_it = matches!(self.tokens.first(), Some(Token::Word(word)) if word == wanted);
        if is_it {
            self.tokens.remove(0);
        }
        is_it
    }

    /// Takes this word at any position.
    pub(super) fn flag(&mut self, wanted: &str) -> bool {
        let at = self.tokens.iter().position(|t| matches!(t, Token::Word(w) if w == wanted));
        at.map(|at| self.tokens.remove(at)).is_some()
    }

    /// Takes this word and the one after it at any position.
    pub(super) fn after(&mut self, wanted: &str) -> Option<String> {
        let at = self.tokens.iter().position(|t| matches!(t, Token::Word(w) if w == wanted))?;
        match self.tokens.get(at + 1) {
            Some(Token::Word(next)) => {
                let next = next.clone();
                self.tokens.drain(at..at + 2);
                Some(next)
            }
            Some(_) | None => None,
        }
    }

    /// Takes the value of a pair at any position.
    pub(super) fn pair(&mut self, wanted: &str) -> Option<String> {
        let at = self.tokens.iter().position(|t| matches!(t, Token::Pair(k, _) if k == wanted))?;
        match self.tokens.remove(at) {
            Token::Pair(_, value) => Some(String::from_utf8_lossy(&value).into_owned()),
            Token::Word(_) | Token::Quoted(_) => None,
        }
    }

    /// Takes the value of a pair that is a number.
    ///
    /// # Errors
    /// It is no such number.
    pub(super) fn number<T: std::str::FromStr>(
        &mut self,
        wanted: &str,
    ) -> Result<Option<T>, String> {
        self.pair(wanted)
            .map(|value| value.parse().map_err(|_| format!("'{wanted}={value}' is no number")))
            .transpose()
    }

    /// Takes all pairs that are left.
    pub(super) fn pairs(&mut self) -> Vec<(String, String)> {
        let mut out = Vec::new();
        self.tokens.retain(|token| match token {
            Token::Pair(key, value) => {
                out.push((key.clone(), String::from_utf8_lossy(value).into_owned()));
                false
            }
            Token::Word(_) | Token::Quoted(_) => true,
        });
        out
    }

    /// Takes the next quoted text at any position.
    pub(super) fn quoted(&mut self) -> Option<Vec<u8>> {
        let at = self.tokens.iter().position(|t| matches!(t, Token::Quoted(_)))?;
        match self.tokens.remove(at) {
            Token::Quoted(text) => Some(text),
            Token::Word(_) | Token::Pair(..) => None,
        }
    }

    /// A body: text in quotation marks, `N bytes`, or nothing.
    pub(super) fn body(&mut self) -> Vec<u8> {
        if let Some(text) = self.quoted() {
            return text;
        }
        let is_size = |n: &str| n.parse::<usize>().is_ok();
        let at = self.tokens.windows(2).position(|pair| match pair {
            [Token::Word(n), Token::Word(unit)] => unit == "bytes" && is_size(n),
            _ => false,
        });
        let Some(at) = at else { return Vec::new() };
        let size = match &self.tokens[at] {
            Token::Word(size) => size.parse().unwrap_or(0),
            Token::Quoted(_) | Token::Pair(..) => 0,
        };
        self.tokens.drain(at..at + 2);
        vec![b'x'; size]
    }

    /// All plain words that are left.
    pub(super) fn rest(&mut self) -> Vec<String> {
        let mut out = Vec::new();
        while let Ok(word) = self.word("") {
            out.push(word);
        }
        out
    }

    /// Nothing is left.
    ///
    /// # Errors
    /// Names the first word that is left, and what is known here.
    pub(super) fn end(&self, known: &str) -> Result<(), String> {
        let word = match self.tokens.first() {
            None => return Ok(()),
            Some(Token::Word(word)) => word.clone(),
            Some(Token::Quoted(text)) => body(text),
            Some(Token::Pair(key, _)) => format!("{key}=…"),
        };
        Err(format!("unknown word '{word}' after '{}'; known here: {known}", self.taken.trim_end()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_pairs_and_texts() {
        let got = tokens(r#"c1 sends "a \"b\" \n\xff" seq=5 says="x y" more"#).unwrap();
        assert_eq!(
            got,
            [
                Token::Word("c1".into()),
                Token::Word("sends".into()),
                Token::Quoted(b"a \"b\" \n\xff".to_vec()),
                Token::Pair("seq".into(), b"5".to_vec()),
                Token::Pair("says".into(), b"x y".to_vec()),
                Token::Word("more".into()),
            ]
        );
        assert!(tokens("\"a").is_err() && tokens(r#""\q""#).is_err());
    }
}
