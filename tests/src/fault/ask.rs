//! What a request of the fault run asks of its worker, as text that both sides parse: who asks, how
//! long to work, what to do.

use std::fmt;
use std::str::FromStr;

/// What a worker is to do about a request besides answering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Nothing.
    Answer,
    /// End by signal instead of answering.
    Die,
    /// Answer with an error of its own.
    Fail,
    /// Never answer.
    Hang,
    /// Start a process that stays, then answer.
    Child,
    /// Answer each piece by itself: a conversation.
    Talk,
}

const ACTS: [(Act, &str); 6] = [
    (Act::Answer, "answer"),
    (Act::Die, "die"),
    (Act::Fail, "fail"),
    (Act::Hang, "hang"),
    (Act::Child, "child"),
    (Act::Talk, "talk"),
];

/// A request of the fault run; the first line of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Of this request alone in the whole run.
    pub id: u64,
    /// How long the worker works, microseconds.
    pub work_us: u64,
    /// How the worker ends the request: it replies, or misbehaves.
    pub act: Act,
    /// Bytes of filling behind the answer's first line.
    pub filling: usize,
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = ACTS.iter().find(|(act, _)| *act == self.act).map_or("answer", |(_, w)| *w);
        writeln!(f, "ask {} {} {word} {}", self.id, self.work_us, self.filling)
    }
}

impl FromStr for Ask {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let mut words = line.split(' ');
        let mut next = || words.next().ok_or_else(|| format!("'{line}' lacks a word"));
        if next()? != "ask" {
            return Err(format!("'{line}' is no ask"));
        }
        let number = |word: &str| word.parse::<u64>().map_err(|e| format!("'{word}': {e}"));
        let (id, work_us) = (number(next()?)?, number(next()?)?);
        let word = next()?;
        let act = ACTS.iter().find(|(_, w)| *w == word).ok_or_else(|| format!("'{word}'?"))?.0;
        let filling = usize::try_from(number(next()?)?).map_err(|e| e.to_string())?;
        Ok(Self { id, work_us, act, filling })
    }
}

impl Ask {
    /// Reads the first line of a body.
    ///
    /// # Errors
    /// It is none of ours.
    pub fn of(body: &[u8]) -> Result<Self, String> {
        let line = body.split(|byte| *byte == b'\n').next().unwrap_or_default();
        std::str::from_utf8(line).map_err(|e| e.to_string())?.parse()
    }
}

/// A running sum over all bytes of a request (FNV-1a), so that an answer shows what the worker got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    /// Number of bytes summed.
    pub size: u64,
    hash: u64,
}

impl Default for Sum {
    fn default() -> Self {
        Self { size: 0, hash: 0xcbf2_9ce4_8422_2325 }
    }
}

impl Sum {
    /// Adds a piece.
    pub fn add(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// The answer to a request with this sum.
    pub fn answer(&self, ask: &Ask) -> Vec<u8> {
        let mut answer = format!("got {} {} {}\n", ask.id, self.size, self.hash).into_bytes();
        answer.resize(answer.len() + ask.filling, b'.');
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ask_is_read_as_it_was_written() {
        for (act, _) in ACTS {
            let ask = Ask { id: u64::MAX, work_us: 7, act, filling: 99 };
            assert_eq!(Ask::of(format!("{ask}more bytes").as_bytes()), Ok(ask));
        }
        for wrong in ["", "ask", "ask 1 2 answer", "ask 1 2 dance 3", "ask x 2 answer 3"] {
            assert!(Ask::of(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
