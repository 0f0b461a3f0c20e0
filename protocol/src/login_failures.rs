//! Limits how often logins that prove a token may fail; used by the broker's engine (`access`) and
//! by execd's authenticator. Failures are counted for each pair of token and peer group, so that
//! the limit meets whoever caused the failures. A login with the right token is never refused
//! because of other peer groups; at most its check waits.

use crate::names::TokenName;
use crate::peer_group::PeerGroup;
use crate::time::{Micros, Tick};
use std::collections::BTreeMap;

/// Failed logins that one token may have from one peer group before its checks are delayed.
pub const FAILURES_MAX: u32 = 10;
/// One counted failure of a token and peer group is forgotten each time that this passes without a
/// further one. Each failure begins the time anew, so whoever fails more often is forgiven nothing.
const FORGET: Micros = Micros::from_millis(1000);
/// The number of the first failure beyond that.
const FIRST_BEYOND: u32 = FAILURES_MAX + 1;
/// Milliseconds between two checks of one token from one peer group past the limit.
pub const CHECK_EVERY_MS: u64 = 100;
/// Most checks of one token from one peer group that are due or wait, one of them now; further
/// logins are refused.
pub const CHECKS_MAX: u64 = 16;
/// Failed logins that one token may have from all peer groups together before its checks are
/// delayed.
const EVERYWHERE_MAX: u32 = 100;
/// The same time for the failures of a token from all peer groups together.
const EVERYWHERE_FORGET: Micros = Micros::from_millis(100);
/// Milliseconds by which each check of a token past that limit is delayed.
const EVERYWHERE_WAIT_MS: u64 = 500;
/// Most entries in each table of failures: pairs of token and peer group, and tokens.
const ENTRIES_MAX: usize = 1024;

/// When a proof is to be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Check it now.
    Now,
    /// Check it at this tick.
    At(Tick),
    /// Refuse this login: too many checks wait already. A later one may be checked again.
    Refuse,
}

/// What a failed proof means for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The limit is not reached.
    Counted,
    /// The first failure beyond the limit, which is worth a log line.
    FirstBeyond,
    /// The limit was passed before.
    Beyond,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    failures: u32,
    /// The tick of the last failure.
    last: Tick,
    /// The tick of the next check.
    turn: Tick,
}

/// Failures by key. The table is bounded: a new key replaces the one with the fewest failures.
#[derive(Debug)]
struct Counts<K> {
    forget: Micros,
    entries: BTreeMap<K, Count>,
}

impl<K: Ord + Clone> Counts<K> {
    const fn new(forget: Micros) -> Self {
        Self { forget, entries: BTreeMap::new() }
    }

    /// How many failures of this entry are not forgotten yet.
    fn left(&self, count: &Count, now: Tick) -> u32 {
        let forgotten = now.since(count.last).0 / self.forget.0;
        count.failures.saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX))
    }

    fn of(&self, key: &K, now: Tick) -> u32 {
        self.entries.get(key).map_or(0, |count| self.left(count, now))
    }

    /// Counts one failure and returns how many there are now.
    fn add(&mut self, key: &K, now: Tick) -> u32 {
        if self.entries.len() >= ENTRIES_MAX && !self.entries.contains_key(key) {
            // Made-up names fail once each, so they replace each other and not a name that fails
            // often.
            let fewest = self.entries.iter().min_by_key(|(_, c)| (self.left(c, now), c.last));
            if let Some(fewest) = fewest.map(|(key, _)| key.clone()) {
                self.entries.remove(&fewest);
            }
        }
        let failures = self.of(key, now).saturating_add(1);
        let turn = self.entries.get(key).map_or(now, |count| count.turn);
        self.entries.insert(key.clone(), Count { failures, last: now, turn });
        failures
    }
}

/// The failures that are remembered, in bounded tables.
#[derive(Debug)]
pub struct LoginFailures {
    here: Counts<(TokenName, PeerGroup)>,
    everywhere: Counts<TokenName>,
}

impl Default for LoginFailures {
    fn default() -> Self {
        Self { here: Counts::new(FORGET), everywhere: Counts::new(EVERYWHERE_FORGET) }
    }
}

impl LoginFailures {
    /// Decides when a proof that just came is to be checked.
    pub fn ask(&mut self, token: &TokenName, peer_group: PeerGroup, now: Tick) -> Check {
        let key = (token.clone(), peer_group);
        let mut at = now;
        if self.here.of(&key, now) >= FAILURES_MAX
            && let Some(count) = self.here.entries.get_mut(&key)
        {
            at = count.turn.max(now);
            if at.since(now).as_millis() >= CHECK_EVERY_MS * CHECKS_MAX {
                return Check::Refuse;
            }
            count.turn = at.plus_millis(CHECK_EVERY_MS);
        }
        if self.everywhere.of(token, now) >= EVERYWHERE_MAX {
            at = at.plus_millis(EVERYWHERE_WAIT_MS);
        }
        if at > now { Check::At(at) } else { Check::Now }
    }

    /// Counts a proof that was wrong, or whose token is not known.
    pub fn failed(&mut self, token: &TokenName, peer_group: PeerGroup, now: Tick) -> Failure {
        self.everywhere.add(token, now);
        match self.here.add(&(token.clone(), peer_group), now) {
            ..=FAILURES_MAX => Failure::Counted,
            FIRST_BEYOND => Failure::FirstBeyond,
            _ => Failure::Beyond,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(name: &str) -> TokenName {
        TokenName::new(name).unwrap()
    }

    fn group(last: u32) -> PeerGroup {
        PeerGroup::V4(last)
    }

    #[test]
    fn a_penalty_hits_the_token_and_the_group_that_earned_it() {
        let mut failures = LoginFailures::default();
        let now = Tick::from_millis(5000);
        for _ in 0..50 {
            failures.failed(&token("stale"), group(1), now);
        }
        assert_eq!(failures.ask(&token("good"), group(1), now), Check::Now, "another token");
        assert_eq!(failures.ask(&token("stale"), group(2), now), Check::Now, "another group");
        assert_eq!(failures.ask(&token("stale"), PeerGroup::User(None), now), Check::Now);
        // The same token from the same peer group waits, and is checked all the same.
        assert_eq!(
            failures.ask(&token("stale"), group(1), now),
            Check::Now,
            "the first turn is free"
        );
        let turns = (1..CHECKS_MAX).map(|n| Check::At(now.plus_millis(n * CHECK_EVERY_MS)));
        for turn in turns {
            assert_eq!(failures.ask(&token("stale"), group(1), now), turn);
        }
        assert_eq!(failures.ask(&token("stale"), group(1), now), Check::Refuse);
        let later = now.plus_millis(CHECK_EVERY_MS);
        assert!(matches!(failures.ask(&token("stale"), group(1), later), Check::At(_)));
    }

    #[test]
    fn failures_are_forgotten_one_a_second() {
        let mut failures = LoginFailures::default();
        let mut said = Vec::new();
        for _ in 0..=FAILURES_MAX {
            said.push(failures.failed(&token("x"), group(1), Tick(0)));
        }
        said.push(failures.failed(&token("x"), group(1), Tick(0)));
        assert_eq!(said[9..], [Failure::Counted, Failure::FirstBeyond, Failure::Beyond]);
        let at = Tick::from_millis(3000);
        for _ in 0..3 {
            assert_eq!(failures.ask(&token("x"), group(1), at), Check::Now);
        }
        assert_eq!(failures.failed(&token("x"), group(1), at), Failure::Counted);
        assert_eq!(failures.failed(&token("x"), group(1), at), Failure::FirstBeyond, "news again");
    }

    #[test]
    fn guesses_from_many_groups_are_slowed_down_and_nobody_is_locked_out() {
        let mut failures = LoginFailures::default();
        for last in 0..EVERYWHERE_MAX {
            assert_eq!(failures.ask(&token("x"), group(last), Tick(0)), Check::Now);
            failures.failed(&token("x"), group(last), Tick(0));
        }
        let wait = Check::At(Tick::from_millis(EVERYWHERE_WAIT_MS));
        assert_eq!(failures.ask(&token("x"), group(7777), Tick(0)), wait);
        assert_eq!(failures.ask(&token("y"), group(7777), Tick(0)), Check::Now);
    }

    #[test]
    fn names_that_are_made_up_push_each_other_out() {
        let mut failures = LoginFailures::default();
        for _ in 0..=FAILURES_MAX {
            failures.failed(&token("x"), group(1), Tick(0));
        }
        for n in 0..3 * ENTRIES_MAX {
            failures.failed(&token(&format!("n{n}")), group(1), Tick(1));
        }
        assert_eq!(failures.here.entries.len(), ENTRIES_MAX);
        assert_eq!(failures.everywhere.entries.len(), ENTRIES_MAX);
        assert_eq!(failures.failed(&token("x"), group(1), Tick(2)), Failure::Beyond);
    }
}
