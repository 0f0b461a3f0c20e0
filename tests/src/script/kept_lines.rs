//! What the host of a worker keeps of its output, in a script.

use super::stimulus::text;
use super::words::Cursor;
use super::world::World;
use broker::engine::input::Report;
use protocol::bodies::{ExecLines, Stream};
use protocol::ids::WorkerId;
use protocol::process::KeptLine;

/// The time of scripts, in milliseconds since 1970.
const EPOCH_MS: u64 = 1_767_225_600_000;

impl World {
    /// A host answers the last `exec-read` for a worker: `keeps "ONE|TWO" [from=NUMBER] [at=MS]
    /// [lost=N] [request=N] [more] [stdout] [because "WHY"]`. Each line comes a second after the
    /// one before.
    pub(super) fn keeps(&mut self, id: u32, line: &mut Cursor) -> Result<(), String> {
        let why = line.is("because").then(|| text(line));
        let texts = line.quoted();
        let from: u64 = line.number("from")?.unwrap_or(1);
        let at: u64 = line.number("at")?.unwrap_or(0);
        let lost = line.number("lost")?.unwrap_or(0);
        let asked = self.workers.get(&id).map_or(0, |end| end.read);
        let request = line.number("request")?.unwrap_or(asked);
        let stream = if line.flag("stdout") { Stream::Stdout } else { Stream::Stderr };
        let more = line.flag("more");
        let texts = texts.map(|texts| String::from_utf8_lossy(&texts).into_owned());
        let texts: Vec<&str> = texts.iter().flat_map(|texts| texts.split('|')).collect();
        let lines = texts.into_iter().zip(0..).map(|(text, index)| KeptLine {
            number: from + index,
            at_ms: EPOCH_MS + at + index * 1000,
            stream,
            text: text.to_owned(),
        });
        let lines = lines.collect();
        let worker = WorkerId(id);
        let answer =
            ExecLines { request, worker, more, lines, lost, text: why.unwrap_or_default() };
        self.report(id, Report::Lines(answer))
    }
}
