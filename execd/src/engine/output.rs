//! The output of a child: bytes split into lines, lines limited by a rate, and the last lines of
//! stderr kept for the report of the end. The engine sends the lines.

use super::action::KeptText;
use super::limits::{LINE_BYTES_MAX, Limits};
use protocol::bodies::Stream;
use protocol::time::Tick;
use std::collections::VecDeque;

/// A line that may be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) stream: Stream,
    /// The line without its end, with U+FFFD for bytes that are not UTF-8.
    pub(super) text: String,
    /// Lines of this stream that were dropped since the last one that was sent.
    pub(super) dropped: u64,
    /// Its number among the lines that are kept; 0 = it is not kept.
    pub(super) number: u64,
}

/// A token bucket: a burst, then a sustained rate.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    /// What may be taken now, in millionths of one.
    level: u64,
    burst: u64,
    per_second: u64,
    at: Tick,
}

const ONE: u64 = 1_000_000;

impl Bucket {
    /// A full bucket.
    pub(super) fn new(per_second: u32, burst: u32, now: Tick) -> Self {
        let burst = u64::from(burst) * ONE;
        Self { level: burst, burst, per_second: u64::from(per_second), at: now }
    }

    /// Takes one, if one is left; returns whether it did.
    pub(super) fn take(&mut self, now: Tick) -> bool {
        let gained = now.since(self.at).0.saturating_mul(self.per_second);
        self.level = self.level.saturating_add(gained).min(self.burst);
        self.at = self.at.max(now);
        let Some(left) = self.level.checked_sub(ONE) else { return false };
        self.level = left;
        true
    }
}

/// Splits the bytes of one stream into lines.
#[derive(Clone, Debug, Default)]
struct LineSplitter {
    pending: Vec<u8>,
    /// Whether the line is past its limit and the rest of it is dropped.
    skipping: bool,
    /// Whether the stream has ended.
    ended: bool,
    dropped: u64,
    /// The last line that was dropped, and its number; it is sent at the end.
    last_dropped: Option<(String, u64)>,
}

impl LineSplitter {
    fn push(&mut self, bytes: &[u8], mut each: impl FnMut(&mut Self, String)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (body, is_whole) = match piece.strip_suffix(b"\n") {
                Some(body) => (body, true),
                None => (piece, false),
            };
            if !self.skipping {
                let room = LINE_BYTES_MAX - self.pending.len();
                self.pending.extend_from_slice(&body[..body.len().min(room)]);
                if body.len() > room {
                    let line = format!("{}…", self.take());
                    self.skipping = true;
                    each(self, line);
                } else if is_whole {
                    let line = self.take();
                    each(self, line);
                }
            }
            if is_whole {
                self.skipping = false;
            }
        }
    }

    fn take(&mut self) -> String {
        let mut bytes = std::mem::take(&mut self.pending);
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        // A character that the limit cuts in two is left out rather than shown as invalid.
        if bytes.len() + 1 >= LINE_BYTES_MAX
            && let Err(error) = std::str::from_utf8(&bytes)
            && error.error_len().is_none()
        {
            bytes.truncate(error.valid_up_to());
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// The state of both streams of a child.
#[derive(Debug)]
pub(super) struct Output {
    stdout: LineSplitter,
    stderr: LineSplitter,
    rate: Bucket,
    tail: VecDeque<String>,
    tail_lines_max: usize,
    /// Whether its lines are kept. Independent of all else: it never changes.
    pub(super) is_kept: bool,
    /// The number of the last line of its worker. Valid while lines are taken.
    pub(super) last: u64,
    /// The lines to keep of what was pushed last.
    pub(super) kept: Option<KeptText>,
}

impl Output {
    /// The state before the child writes anything.
    pub(super) fn new(limits: &Limits, is_kept: bool, now: Tick) -> Self {
        Self {
            stdout: LineSplitter::default(),
            stderr: LineSplitter::default(),
            rate: Bucket::new(limits.lines_per_second, limits.lines_burst, now),
            tail: VecDeque::new(),
            tail_lines_max: limits.tail_lines_max,
            is_kept,
            last: 0,
            kept: None,
        }
    }

    /// Takes bytes of a stream; returns the lines that may be sent. `shared` is the rate of all
    /// children together; without it (nobody listens) every line counts as dropped.
    pub(super) fn push(
        &mut self,
        now: Tick,
        stream: Stream,
        bytes: &[u8],
        mut shared: Option<&mut Bucket>,
    ) -> Vec<Line> {
        let mut passed = Vec::new();
        let Self { stdout, stderr, rate, tail, tail_lines_max, is_kept, last, kept } = self;
        let splitter = match stream {
            Stream::Stdout => stdout,
            Stream::Stderr => stderr,
        };
        splitter.push(bytes, |splitter, text| {
            let mut number = 0;
            if *is_kept {
                *last += 1;
                number = *last;
                let kept = kept.get_or_insert_with(|| KeptText::new(stream, number));
                kept.text.push_str(&text);
                kept.text.push('\n');
            }
            if stream == Stream::Stderr && *tail_lines_max > 0 {
                if tail.len() == *tail_lines_max {
                    tail.pop_front();
                }
                tail.push_back(text.clone());
            }
            let is_passed =
                shared.as_mut().is_some_and(|shared| rate.take(now) && shared.take(now));
            if is_passed {
                let dropped = std::mem::take(&mut splitter.dropped);
                splitter.last_dropped = None;
                passed.push(Line { stream, text, dropped, number });
            } else {
                splitter.dropped += 1;
                splitter.last_dropped = Some((text, number));
            }
        });
        passed
    }

    /// Ends the stream; a last line without a line end counts as a line.
    pub(super) fn end(
        &mut self,
        now: Tick,
        stream: Stream,
        shared: Option<&mut Bucket>,
    ) -> Vec<Line> {
        let splitter = self.splitter(stream);
        if std::mem::replace(&mut splitter.ended, true) || splitter.pending.is_empty() {
            return Vec::new();
        }
        self.push(now, stream, b"\n", shared)
    }

    /// Whether both streams have ended.
    pub(super) fn has_ended(&self) -> bool {
        self.stdout.ended && self.stderr.ended
    }

    /// The last dropped line of each stream, for the end of the child, so that a flood does not end
    /// in silence. The rate does not apply to these lines.
    pub(super) fn last_words(&mut self) -> Vec<Line> {
        let mut lines = Vec::new();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let splitter = self.splitter(stream);
            if let Some((text, number)) = splitter.last_dropped.take() {
                let dropped = std::mem::take(&mut splitter.dropped).saturating_sub(1);
                lines.push(Line { stream, text, dropped, number });
            }
        }
        lines.sort_by_key(|line| line.number);
        lines
    }

    /// The last lines of stderr, oldest first.
    pub(super) fn tail(&mut self) -> Vec<String> {
        std::mem::take(&mut self.tail).into()
    }

    const fn splitter(&mut self, stream: Stream) -> &mut LineSplitter {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wide() -> Bucket {
        Bucket::new(u32::MAX, u32::MAX, Tick(0))
    }

    fn lines(output: &mut Output, ms: u64, bytes: &[u8]) -> Vec<(String, u64)> {
        let lines = output.push(Tick::from_millis(ms), Stream::Stderr, bytes, Some(&mut wide()));
        lines.into_iter().map(|line| (line.text, line.dropped)).collect()
    }

    fn texts(output: &mut Output, bytes: &[u8]) -> Vec<String> {
        lines(output, 0, bytes).into_iter().map(|(text, _)| text).collect()
    }

    #[test]
    fn bytes_become_lines_wherever_they_are_split() {
        let whole = b"one\ntwo\r\n\nth\xffree\n";
        let want = ["one", "two", "", "th\u{fffd}ree"];
        for at in 0..=whole.len() {
            let mut output = Output::new(&Limits::default(), false, Tick(0));
            let mut got = texts(&mut output, &whole[..at]);
            got.extend(texts(&mut output, &whole[at..]));
            assert_eq!(got, want, "split at {at}");
        }
    }

    #[test]
    fn a_last_line_without_an_end_is_a_line() {
        let mut output = Output::new(&Limits::default(), false, Tick(0));
        assert!(texts(&mut output, b"half").is_empty());
        let end = output.end(Tick(0), Stream::Stderr, Some(&mut wide()));
        assert_eq!(end.len(), 1);
        assert_eq!(end[0].text, "half");
        assert!(output.end(Tick(0), Stream::Stderr, Some(&mut wide())).is_empty());
        assert!(!output.has_ended());
        output.end(Tick(0), Stream::Stdout, Some(&mut wide()));
        assert!(output.has_ended());
    }

    #[test]
    fn a_line_at_the_limit_passes_and_one_over_is_truncated() {
        let mut output = Output::new(&Limits::default(), false, Tick(0));
        let at = "x".repeat(LINE_BYTES_MAX);
        assert_eq!(texts(&mut output, format!("{at}\nnext\n").as_bytes()), [&at, "next"]);
        let truncated = format!("{at}…");
        assert_eq!(texts(&mut output, format!("{at}yz\nnext\n").as_bytes()), [&truncated, "next"]);
        // The line comes in pieces and never ends.
        let mut got = Vec::new();
        for _ in 0..100 {
            got.extend(texts(&mut output, &[b'x'; 1000]));
        }
        assert_eq!(got, [truncated]);
        assert_eq!(texts(&mut output, b"\nafter\n"), ["after"]);
    }

    #[test]
    fn a_character_is_never_cut_in_two() {
        let mut output = Output::new(&Limits::default(), false, Tick(0));
        let text = format!("x{}\n", "é".repeat(LINE_BYTES_MAX));
        let got = texts(&mut output, text.as_bytes());
        assert_eq!(got.len(), 1);
        assert!(!got[0].contains('\u{fffd}') && got[0].ends_with("é…"), "{:?}", &got[0][2040..]);
    }

    #[test]
    fn past_the_rate_lines_are_counted_and_the_last_one_is_told_at_the_end() {
        let limits = Limits { lines_per_second: 10, lines_burst: 2, ..Limits::default() };
        let mut output = Output::new(&limits, false, Tick(0));
        let got = lines(&mut output, 0, b"1\n2\n3\n4\n");
        assert_eq!(got, [("1".into(), 0), ("2".into(), 0)]);
        assert_eq!(lines(&mut output, 99, b"5\n"), []);
        assert_eq!(lines(&mut output, 100, b"6\n"), [("6".into(), 3)]);
        assert_eq!(lines(&mut output, 100, b"7\n8\n"), []);
        let last = output.last_words();
        assert_eq!(last.len(), 1);
        assert_eq!((last[0].text.as_str(), last[0].dropped), ("8", 1));
        assert!(output.last_words().is_empty());
    }

    #[test]
    fn the_tail_keeps_the_last_lines_of_stderr_only() {
        let limits = Limits { tail_lines_max: 2, lines_burst: 0, ..Limits::default() };
        let mut output = Output::new(&limits, false, Tick(0));
        output.push(Tick(0), Stream::Stdout, b"out\n", Some(&mut wide()));
        assert!(texts(&mut output, b"a\nb\nc\n").is_empty());
        assert_eq!(output.tail(), ["b", "c"]);
    }

    #[test]
    fn all_children_together_have_a_rate_too() {
        let mut shared = Bucket::new(1, 3, Tick(0));
        let mut passed = 0;
        for _ in 0..2 {
            let mut output = Output::new(&Limits::default(), false, Tick(0));
            passed += output.push(Tick(0), Stream::Stdout, b"1\n2\n", Some(&mut shared)).len();
        }
        assert_eq!(passed, 3);
    }
}
