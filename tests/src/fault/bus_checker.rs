//! Judges what publishers were told and what subscribers got: nothing twice, in order, all of it or
//! counted, and the same message to all.

use protocol::messages::Position;
use std::collections::BTreeMap;

/// A message that the broker took.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Who published it.
    pub publisher: u64,
    /// Its number in the publisher's count.
    pub count: u64,
    /// Its number in the broker's count.
    pub at: Position,
}

/// What one subscriber got since its broker was started.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Which one.
    pub subscriber: u64,
    /// It has all after this, or knows what it has not.
    pub since: Position,
    /// The last message that it got.
    pub last: Position,
    /// What it got: publisher and its count, by number.
    pub got: BTreeMap<u64, (u64, u64)>,
    /// What it was told that it will not get.
    pub missing: Vec<(u64, u64)>,
    /// How many were dropped, as it was told.
    pub dropped: u64,
    /// How often it came back.
    pub pauses: u64,
}

impl Seen {
    /// Whether it ever began.
    pub const fn is_begun(&self) -> bool {
        self.since.epoch != 0
    }

    /// It begins anew at this message.
    pub fn begins(&mut self, at: Position) {
        (self.since, self.last) = (at, at);
        self.got.clear();
        self.missing.clear();
        self.dropped = 0;
    }

    /// It got a message.
    ///
    /// # Errors
    /// It had it, or a later one.
    pub fn takes(&mut self, number: u64, publisher: u64, count: u64) -> Result<(), String> {
        if number <= self.last.number {
            return Err(format!("message {number} comes after {}", self.last.number));
        }
        self.last.number = number;
        self.got.insert(number, (publisher, count));
        Ok(())
    }
}

/// What is wrong.
pub fn check(sent: &[Sent], seen: &[Seen]) -> Vec<String> {
    let mut violations = Vec::new();
    for seen in seen {
        let who = format!("subscriber {}", seen.subscriber);
        let mine = sent.iter().filter(|sent| sent.at.epoch == seen.since.epoch);
        let mine = mine.filter(|sent| sent.at.number > seen.since.number);
        let mut lacking = Vec::new();
        for sent in mine {
            match seen.got.get(&sent.at.number) {
                Some(got) if *got == (sent.publisher, sent.count) => {}
                Some(got) => violations.push(format!("{who} got {got:?} for {sent:?}")),
                None => lacking.push(sent.at.number),
            }
        }
        let is_told = |n: u64| seen.missing.iter().any(|(a, b)| (*a..=*b).contains(&n));
        lacking.retain(|number| !is_told(*number));
        if lacking.len() as u64 > seen.dropped {
            violations.push(format!(
                "{who} lacks {} messages (the first is {:?}), and was told of {}",
                lacking.len(),
                lacking.iter().min(),
                seen.dropped
            ));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(number: u64, count: u64) -> Sent {
        Sent { publisher: 1, count, at: Position { epoch: 7, number } }
    }

    fn seen(numbers: &[(u64, u64)]) -> Seen {
        let mut seen = Seen::default();
        seen.begins(Position { epoch: 7, number: 10 });
        for (number, count) in numbers {
            seen.takes(*number, 1, *count).unwrap();
        }
        seen
    }

    #[test]
    fn what_was_got_counted_or_missing_is_all_there_is() {
        let all = [sent(9, 1), sent(11, 2), sent(12, 3), sent(14, 4)];
        assert!(check(&all, &[seen(&[(11, 2), (12, 3), (14, 4)])]).is_empty());
        let mut counted = seen(&[(11, 2), (14, 4)]);
        assert!(check(&all, &[counted.clone()])[0].contains("lacks 1"));
        counted.dropped = 1;
        assert!(check(&all, &[counted]).is_empty());
        let mut told = seen(&[(14, 4)]);
        told.missing.push((11, 13));
        assert!(check(&all, &[told]).is_empty());
    }

    #[test]
    fn another_message_of_the_same_number_is_found() {
        let violations = check(&[sent(11, 2)], &[seen(&[(11, 3)])]);
        assert!(violations[0].contains("got (1, 3)"), "{violations:?}");
    }

    #[test]
    fn nothing_comes_twice_or_out_of_order() {
        let mut seen = seen(&[(11, 2), (12, 3)]);
        assert!(seen.takes(12, 1, 3).is_err() && seen.takes(11, 1, 2).is_err());
    }
}
