//! The changes that are to be stored, whether what is in force is stored, and the answers that wait
//! for that. An operator who made a change is answered when the change is on the disk, or when it
//! is known that it is not.

use super::action::{Action, Summary};
use super::timers::{Timer, Timers};
use protocol::{Block, Frame, LinkId, OpReply, Tick, Value};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};

/// Milliseconds that an answer waits for the disk. Then it goes out with a warning.
pub(crate) const WAIT_MS: u64 = 5000;

/// Most answers of one connection that wait at once. If there are more, the oldest goes out with a
/// warning.
const HELD_MAX: usize = 1000;

/// An answer that waits.
#[derive(Debug)]
struct Held {
    /// Number of the `Action::Store` that it waits for.
    number: u64,
    link: LinkId,
    action: Action,
}

/// Most bytes of changes that wait for the disk. If it takes none of them, more are refused.
const WRITING_BYTES_MAX: usize = 16 << 20;

/// What a command did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Difference {
    /// It only showed something.
    #[default]
    Shown,
    /// Everything was as it says already.
    Unchanged,
    /// It did something.
    Changed,
}

/// What is stored, and what waits for it.
#[derive(Debug, Default)]
pub(crate) struct Store {
    /// Number of the last `Action::Store`.
    last: u64,
    /// Number of the last `Action::Store` that was answered.
    done: u64,
    /// Number of the last `Action::Store` whose answer is overdue.
    overdue: u64,
    /// This step changed the configuration, so it ends with `Action::Store`.
    is_changed: bool,
    /// This step ends with `Action::Store`, because the last one failed. Independent of
    /// `is_changed`: no answer waits for it.
    is_again: bool,
    /// What this step changed: one command a line, which makes the same change in another engine
    /// with the same configuration.
    lines: String,
    /// Number and size of the lines that are being written, the oldest first.
    writing: VecDeque<(u64, usize)>,
    /// The sum of these sizes.
    writing_bytes: usize,
    /// What the command at hand did.
    difference: Difference,
    /// `Timer::Store` is set. Independent of `unsaved`: a disk that takes no answer sets that, and
    /// no timer.
    is_retry_set: bool,
    /// Why what is in force is not stored; `None` = it is, or it is being written.
    unsaved: Option<String>,
    /// The oldest first.
    held: VecDeque<Held>,
    /// How many of `held` each connection has that has any.
    counts: BTreeMap<LinkId, usize>,
}

impl Store {
    /// A command changed the configuration by these lines, or by none. `is_kept`: they are to be
    /// stored.
    pub(crate) fn changed(&mut self, lines: Vec<String>, is_kept: bool) {
        let is_same = lines.is_empty();
        self.difference = if is_same { Difference::Unchanged } else { Difference::Changed };
        if is_kept && !is_same {
            self.is_changed = true;
            for line in lines {
                self.lines += &line;
                self.lines.push('\n');
            }
        }
    }

    /// The command at hand did this, unless `changed` says otherwise.
    pub(crate) const fn did(&mut self, difference: Difference) {
        self.difference = difference;
    }

    /// Counts the command at hand; once for each command.
    pub(crate) fn count(&mut self, is_ok: bool, summary: &mut Summary) {
        match std::mem::take(&mut self.difference) {
            _ if !is_ok => summary.failed += 1,
            Difference::Shown => {}
            Difference::Unchanged => summary.unchanged += 1,
            Difference::Changed => summary.done += 1,
        }
    }

    /// Why no change is taken any more: so much waits for the disk. `None` = there is room.
    pub(crate) fn refusal(&self) -> Option<String> {
        (self.writing_bytes + self.lines.len() >= WRITING_BYTES_MAX).then(|| {
            format!(
                "{WRITING_BYTES_MAX} bytes of changes wait for the disk of the state directory, \
                 which has not taken them yet; try again later, and see to the disk"
            )
        })
    }

    /// Whether the configuration is to be stored at the end of this step.
    pub(crate) const fn is_due(&self) -> bool {
        self.is_changed || self.is_again
    }

    /// The number and the lines for `Action::Store`, with which a step that changed the
    /// configuration ends.
    pub(crate) fn begin(&mut self, timers: &mut Timers, now: Tick) -> (u64, String) {
        (self.is_changed, self.is_again) = (false, false);
        self.last += 1;
        timers.add(now.plus_millis(WAIT_MS), Timer::StoreWait(self.last));
        self.writing.push_back((self.last, self.lines.len()));
        self.writing_bytes += self.lines.len();
        (self.last, std::mem::take(&mut self.lines))
    }

    /// Why what is in force is not stored; `None` = it is, or it is being written.
    pub(crate) fn unsaved(&self) -> Option<&String> {
        self.unsaved.as_ref()
    }

    /// Whether a change of the configuration is being written.
    pub(crate) fn is_busy(&self) -> bool {
        self.is_due() || self.done < self.last
    }

    /// The number of the `Action::Store` with which this step ends, if it changed something.
    pub(crate) fn number(&self) -> Option<u64> {
        self.is_changed.then_some(self.last + 1)
    }

    /// Takes an answer to an operator: it goes out now, or waits for what this step changed, or for
    /// changes of earlier steps that it tells of. Those are in the `Action::Store` with the number
    /// `earlier`, 0 = there are none; no other answer waits for a later one.
    pub(crate) fn answer(
        &mut self,
        link: LinkId,
        action: Action,
        earlier: u64,
        out: &mut Vec<Action>,
    ) {
        let number = self.number().unwrap_or(earlier);
        if number == 0 {
            out.push(action);
            return;
        }
        let held = Held { number, link, action };
        if number <= self.done.max(self.overdue) {
            held.release(self.unsaved.as_deref(), out);
            return;
        }
        self.held.push_back(held);
        let count = self.counts.entry(link).or_default();
        *count += 1;
        if *count > HELD_MAX {
            *count -= 1;
            let why = format!("{HELD_MAX} changes of this connection wait for the disk");
            let oldest = self.held.iter().position(|held| held.link == link);
            let oldest = oldest.and_then(|at| self.held.remove(at));
            oldest.into_iter().for_each(|held| held.release(Some(&why), out));
        }
    }

    /// A write has ended: lets the answers go that waited for it. Returns whether it is news that
    /// the configuration is stored, or is not.
    pub(crate) fn ended(
        &mut self,
        number: u64,
        result: Result<(), String>,
        out: &mut Vec<Action>,
    ) -> bool {
        self.done = self.done.max(number);
        let count = self.writing.iter().take_while(|(of, _)| *of <= number).count();
        self.writing_bytes -= self.writing.drain(..count).map(|(_, bytes)| bytes).sum::<usize>();
        let before = self.unsaved.clone();
        // A later change that the disk has not taken in time is not stored with this one.
        if result.is_err() || self.done >= self.overdue {
            self.unsaved = result.err();
        }
        self.release(number, out);
        before != self.unsaved
    }

    /// The answers that wait for this write have waited long enough. Returns whether that is news.
    pub(crate) fn is_overdue(&mut self, number: u64, out: &mut Vec<Action>) -> bool {
        if self.done >= number {
            return false;
        }
        let why = format!("the disk has not taken it for {WAIT_MS} ms");
        self.overdue = number;
        let is_news = self.unsaved.as_ref() != Some(&why);
        self.unsaved = Some(why);
        self.release(number, out);
        is_news
    }

    /// The broker ends now: lets all answers go.
    pub(crate) fn give_up(&mut self, out: &mut Vec<Action>) {
        self.counts.clear();
        self.held.drain(..).for_each(|held| held.release(Some("the broker ended first"), out));
    }

    fn release(&mut self, number: u64, out: &mut Vec<Action>) {
        let count = self.held.iter().take_while(|held| held.number <= number).count();
        for held in self.held.drain(..count) {
            if let Entry::Occupied(mut count) = self.counts.entry(held.link) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
            held.release(self.unsaved.as_deref(), out);
        }
    }

    /// Whether `Timer::Store` is to be set; asked once for each failure.
    pub(crate) fn takes_retry(&mut self) -> bool {
        !std::mem::replace(&mut self.is_retry_set, true)
    }

    /// `Timer::Store`: has the configuration written again, if it is not stored.
    pub(crate) fn retry(&mut self) {
        self.is_retry_set = false;
        self.try_again();
    }

    /// Has the configuration written again, if the last write failed.
    pub(crate) fn try_again(&mut self) {
        self.is_again |= self.unsaved.is_some();
    }

    /// Forgets the answers to a link that is gone.
    pub(crate) fn forget(&mut self, link: LinkId) {
        if self.counts.remove(&link).is_some() {
            self.held.retain(|held| held.link != link);
        }
    }

    /// Whether an answer to this link waits.
    pub(crate) fn holds_answer(&self, link: LinkId) -> bool {
        self.counts.contains_key(&link)
    }

    /// The links of the answers that wait.
    pub(crate) fn links(&self) -> impl Iterator<Item = LinkId> {
        self.held.iter().map(|held| held.link)
    }

    /// Whether each waiting answer has a write that will let it go, in order, and is counted.
    pub(crate) fn is_sound(&self) -> bool {
        let mut counts: BTreeMap<LinkId, usize> = BTreeMap::new();
        self.held.iter().for_each(|held| *counts.entry(held.link).or_default() += 1);
        counts == self.counts
            && self.held.iter().is_sorted_by_key(|held| held.number)
            && self.held.iter().all(|held| self.done < held.number && held.number <= self.last)
    }
}

impl Held {
    fn release(mut self, unsaved: Option<&str>, out: &mut Vec<Action>) {
        match (&mut self.action, unsaved) {
            (Action::Answer { reply, .. }, _) => set_unsaved(reply, unsaved),
            // A script that failed in part.
            (Action::Send { frame: Frame::Error { error, .. }, .. }, Some(why)) => {
                error.text += &format!("\n{}", warning(why));
            }
            _ => {}
        }
        out.push(self.action);
    }
}

/// Puts a warning at the end of an answer that the configuration is not saved, and why; `None`
/// removes it.
pub(crate) fn set_unsaved(reply: &mut OpReply, why: Option<&str>) {
    let is_other = |block: &Block| !matches!(block, Block::Line { name: "warning", .. });
    reply.blocks.retain(is_other);
    reply.blocks.extend(why.map(|why| Block::Line {
        name: "warning",
        text: warning(why),
        fields: vec![("unsaved", Value::Text(why.to_owned()))],
    }));
}

fn warning(why: &str) -> String {
    format!("warning: the configuration is not saved: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_takes_nothing_ends_the_changes_and_not_the_memory() {
        let (mut store, mut timers, mut out) = (Store::default(), Timers::default(), Vec::new());
        // With its line break a line is one byte short of a sixteenth.
        let line = "x".repeat((WRITING_BYTES_MAX >> 4) - 2);
        let mut change = |store: &mut Store| {
            store.changed(vec![line.clone()], true);
            store.begin(&mut timers, Tick(0)).0
        };
        let last = (0..16).map(|_| change(&mut store)).max().expect("a change");
        assert_eq!(store.refusal(), None, "16 bytes are left");
        change(&mut store);
        let why = store.refusal().expect("no room");
        assert!(why.starts_with("16777216 bytes of changes wait for the disk"), "{why}");
        // What the disk takes, or fails to take, makes room: the thread that writes keeps it.
        store.ended(last, Err("no space".to_owned()), &mut out);
        assert_eq!(store.refusal(), None);
        assert_eq!(store.writing_bytes, line.len() + 1);
    }
}
