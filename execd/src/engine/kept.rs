//! The numbers of the lines that are kept: each worker's lines are counted over all its processes,
//! and over all execds of a state directory. `os` keeps the lines themselves.

use super::Engine;
use super::action::Action;
use protocol::bodies::{ExecLines, ExecRead};
use protocol::{Frame, LinkId, WorkerId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most lines that one `exec-read` gets.
pub const READ_LINES_MAX: u32 = 10_000;

/// The number of the last line of each worker, by broker.
pub type KeptNumbers = BTreeMap<Arc<str>, BTreeMap<WorkerId, u64>>;

/// The numbers so far; none where no lines are kept.
#[derive(Debug)]
pub(super) struct Kept(pub(super) Option<KeptNumbers>);

impl Kept {
    /// The number of the last line of a worker; `None` = none are kept.
    pub(super) fn last_mut(&mut self, broker: &Arc<str>, worker: WorkerId) -> Option<&mut u64> {
        let brokers = self.0.as_mut()?;
        if !brokers.contains_key(broker) {
            brokers.insert(Arc::clone(broker), BTreeMap::new());
        }
        Some(brokers.get_mut(broker)?.entry(worker).or_default())
    }
}

impl Engine {
    /// Handles `exec-read`.
    pub(super) fn read_lines(&mut self, link: LinkId, broker: &Arc<str>, read: ExecRead) {
        if self.kept.0.is_some() {
            let read = ExecRead { lines: read.lines.min(READ_LINES_MAX), ..read };
            self.out.push(Action::ReadKept { link, broker: Arc::clone(broker), read });
            return;
        }
        let text = "this execd keeps no output: it has no directory for it (--output-dir)";
        let lines = none(read, text.to_owned());
        self.out.push(Action::Send { link, frame: Frame::ExecLines(lines) });
    }
}

/// The answer to an `exec-read` for which there are no lines, with why.
pub fn none(read: ExecRead, text: String) -> ExecLines {
    let ExecRead { request, worker, .. } = read;
    ExecLines { request, worker, more: false, lines: Vec::new(), lost: 0, text }
}
