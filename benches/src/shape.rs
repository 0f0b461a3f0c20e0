//! The shape of a load: `c16w4p64d8i10000` means 16 clients, 4 workers, 64 bytes of payload, 8
//! requests in flight per client, and 10,000 idle clients.

use std::fmt;
use std::str::FromStr;

/// Numbers of clients, workers, bytes and requests in flight; parsed from and printed as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// `c`: clients that ask, one connection each.
    pub clients: usize,
    /// `w`: workers.
    pub workers: usize,
    /// `p`: bytes of payload.
    pub payload: usize,
    /// `d`: requests under way per client.
    pub depth: usize,
    /// `i`: clients that are logged in and say nothing.
    pub idle: usize,
    /// `s`: services beside the one that is asked (isect only).
    pub services: usize,
    /// `q`: requests that wait in another service that has no worker (isect only).
    pub queued: usize,
}

/// One letter of a shape.
struct Part {
    letter: char,
    name: &'static str,
    min: usize,
    max: usize,
    default: Option<usize>,
}

const fn part(
    letter: char,
    name: &'static str,
    range: (usize, usize),
    default: Option<usize>,
) -> Part {
    Part { letter, name, min: range.0, max: range.1, default }
}

/// TABLE of the letters, in the order in which they are written.
const PARTS: [Part; 7] = [
    part('c', "clients", (1, 100_000), None),
    part('w', "workers", (1, 100_000), None),
    part('p', "bytes of payload", (0, 1 << 20), None),
    part('d', "requests under way per client", (1, 1024), Some(1)),
    part('i', "idle clients", (0, 1_000_000), Some(0)),
    part('s', "services beside", (0, 10_000), Some(0)),
    part('q', "queued requests beside", (0, 1_000_000), Some(0)),
];

impl Shape {
    fn values(&self) -> [usize; 7] {
        let Self { clients, workers, payload, depth, idle, services, queued } = *self;
        [clients, workers, payload, depth, idle, services, queued]
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        for (part, value) in PARTS.iter().zip(self.values()) {
            if part.default != Some(value) {
                text.push_str(&format!("{}{value}", part.letter));
            }
        }
        f.pad(&text)
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: String| {
            format!("'{text}' is no shape: {why}; an example is c16w4p64d8 (see 'isdbench --help')")
        };
        let mut values = [None; PARTS.len()];
        let mut rest = text;
        while let Some(letter) = rest.chars().next() {
            let index = PARTS
                .iter()
                .position(|part| part.letter == letter)
                .ok_or_else(|| wrong(format!("there is no letter '{letter}'")))?;
            rest = &rest[letter.len_utf8()..];
            let size = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let part = &PARTS[index];
            let value = rest[..size]
                .parse::<usize>()
                .ok()
                .filter(|value| (part.min..=part.max).contains(value))
                .ok_or_else(|| {
                    wrong(format!("{} ({letter}) are {} to {}", part.name, part.min, part.max))
                })?;
            if values[index].replace(value).is_some() {
                return Err(wrong(format!("'{letter}' stands there twice")));
            }
            rest = &rest[size..];
        }
        let mut all = [0; PARTS.len()];
        for ((part, value), place) in PARTS.iter().zip(values).zip(&mut all) {
            *place = value
                .or(part.default)
                .ok_or_else(|| wrong(format!("{} ({}) are missing", part.name, part.letter)))?;
        }
        let [clients, workers, payload, depth, idle, services, queued] = all;
        Ok(Self { clients, workers, payload, depth, idle, services, queued })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_is_read_and_shown_in_one_spelling() {
        for (given, shown) in [
            ("c16w4p64", "c16w4p64"),
            ("w4c16p64d1", "c16w4p64"),
            ("c1w1p0d8i10000", "c1w1p0d8i10000"),
            ("c1w1p1048576s100q9", "c1w1p1048576s100q9"),
        ] {
            assert_eq!(given.parse::<Shape>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_shape_is_refused_with_the_reason() {
        for (given, part) in [
            ("", "clients (c) are missing"),
            ("c16w4", "bytes of payload (p) are missing"),
            ("c0w1p1", "clients (c) are 1 to"),
            ("c1w1p1048577", "0 to 1048576"),
            ("c1c2w1p1", "stands there twice"),
            ("c1w1p1x3", "no letter 'x'"),
            ("c1w1pé", "(p) are 0"),
            ("c99999999999999999999w1p1", "(c) are 1"),
        ] {
            let error = given.parse::<Shape>().unwrap_err();
            assert!(error.contains(part), "{given}: {error}");
        }
    }
}
