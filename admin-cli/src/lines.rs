//! The lines that a program writes about itself to the descriptor of `announce`.

use client::bus::InstanceState;

/// A line that is longer is passed over.
const LINE_BYTES_MAX: usize = 4096;

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// The program goes on, and has reached this.
    Checkpoint(u64),
    /// It has another state, and a text about it.
    State(InstanceState, String),
    /// It has nothing to do.
    Idle,
    /// It is none of these; the program goes on.
    Unknown(String),
}

impl Line {
    /// Reads a line.
    pub fn read(text: &str) -> Self {
        let text = text.trim();
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let rest = rest.trim();
        let (value, more) = rest.split_once(' ').unwrap_or((rest, ""));
        let read = match word {
            "checkpoint" => value.parse().ok().map(Self::Checkpoint),
            "state" => {
                InstanceState::read(value).map(|state| Self::State(state, more.trim().to_owned()))
            }
            "idle" => Some(Self::Idle),
            _ => None,
        };
        read.unwrap_or_else(|| Self::Unknown(text.to_owned()))
    }
}

/// Puts lines together from what is read.
#[derive(Debug, Default)]
pub struct Lines {
    part: Vec<u8>,
    /// The line began too long ago.
    is_too_long: bool,
}

impl Lines {
    /// The lines that end in these bytes.
    pub fn add(&mut self, bytes: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.part.extend_from_slice(piece);
            let is_whole = piece.ends_with(b"\n");
            self.is_too_long |= self.part.len() > LINE_BYTES_MAX;
            if self.is_too_long {
                self.part.clear();
            }
            if is_whole {
                let part = std::mem::take(&mut self.part);
                let text = String::from_utf8_lossy(&part);
                let is_good = !std::mem::take(&mut self.is_too_long) && !text.trim().is_empty();
                lines.extend(is_good.then(|| Line::read(&text)));
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_the_program_does() {
        let own = InstanceState::Own(100);
        for (text, line) in [
            ("checkpoint 7", Line::Checkpoint(7)),
            (" checkpoint  7 \r", Line::Checkpoint(7)),
            ("state running", Line::State(InstanceState::Running, String::new())),
            ("state 100 batch 7 of 12", Line::State(own, "batch 7 of 12".into())),
            ("idle", Line::Idle),
            ("state asleep", Line::Unknown("state asleep".into())),
            ("state 99", Line::Unknown("state 99".into())),
            ("checkpoint -1", Line::Unknown("checkpoint -1".into())),
            ("hello", Line::Unknown("hello".into())),
        ] {
            assert_eq!(Line::read(text), line, "{text}");
        }
    }

    #[test]
    fn lines_are_put_together_wherever_they_are_split() {
        let text = b"checkpoint 1\n\nidle\ncheckpoint 23\nstate";
        let whole = [Line::Checkpoint(1), Line::Idle, Line::Checkpoint(23)];
        for size in 1..=text.len() {
            let mut lines = Lines::default();
            let read: Vec<Line> = text.chunks(size).flat_map(|chunk| lines.add(chunk)).collect();
            assert_eq!(read, whole, "{size}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over_and_the_next_one_is_not() {
        let mut lines = Lines::default();
        for _ in 0..100 {
            assert!(lines.add(&[b'x'; 1000]).is_empty());
            assert!(lines.part.len() <= LINE_BYTES_MAX);
        }
        assert!(lines.add(b"\n").is_empty());
        assert_eq!(lines.add(b"idle\n"), [Line::Idle]);
    }
}
