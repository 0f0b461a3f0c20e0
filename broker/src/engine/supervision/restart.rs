//! Decides when to start a worker again after an unexpected end: at once, after a backoff, or not
//! any more. It has the history of one worker; `process` handles the end itself.

use protocol::{Setting, Settings, Tick};
use std::collections::VecDeque;

/// What to do with a worker that ended unexpectedly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Start it now.
    Now,
    /// Start it at this tick.
    At(Tick),
    /// Don't start it again; the text says why.
    GiveUp(String),
}

/// The unexpected ends of one worker, as far as they count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Restart {
    /// Ends within the last minute, oldest first.
    ends: VecDeque<Tick>,
    /// Ends in a row before the worker was ready.
    early: u64,
    /// Milliseconds that the next restart waits; the first one waits none.
    wait_ms: u64,
    /// It was not started since its last end; the next start counts in `restarts`. Independent of
    /// `ends`: one that is not noted there is followed by a restart, too.
    is_pending: bool,
    /// No start on demand comes before this tick. Independent of `ends`: a start that its host put
    /// off is no end.
    not_before: Option<Tick>,
}

const MINUTE_MS: u64 = 60_000;

impl Restart {
    /// Forgets all ends.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Notes an end that counts for no backoff. `is_wanted`: it is to be started again.
    pub(crate) const fn ended_unreachable(&mut self, is_wanted: bool) {
        self.is_pending = is_wanted;
    }

    /// Notes the end of a worker that had answered requests and ended in order: it is no failure,
    /// and followed by a start at once.
    pub(crate) const fn ended_in_order(&mut self) -> Decision {
        self.is_pending = true;
        self.early = 0;
        Decision::Now
    }

    /// The worker is started. Returns whether that is a restart after an unexpected end.
    pub(crate) const fn started(&mut self) -> bool {
        std::mem::replace(&mut self.is_pending, false)
    }

    /// Notes an end at `now` and decides what to do. `ready` is when the worker became ready;
    /// `None` = it never did.
    pub(crate) fn ended(
        &mut self,
        now: Tick,
        ready: Option<Tick>,
        settings: &Settings,
    ) -> Decision {
        let get = |setting| settings.get(setting);
        match ready {
            None => self.early += 1,
            Some(since) if now.since(since).as_millis() >= get(Setting::RestartQuietMs) => {
                self.reset();
            }
            Some(_) => self.early = 0,
        }
        self.is_pending = true;
        while self.ends.front().is_some_and(|&end| now.since(end).as_millis() >= MINUTE_MS) {
            self.ends.pop_front();
        }
        self.ends.push_back(now);
        if self.early >= get(Setting::RestartEarlyMax) {
            return Decision::GiveUp(format!("it ended {} times before it was ready", self.early));
        }
        if self.ends.len() as u64 >= get(Setting::RestartMinuteMax) {
            return Decision::GiveUp(format!("it ended {} times within a minute", self.ends.len()));
        }
        match self.next_wait_ms(settings) {
            0 => Decision::Now,
            wait => {
                let at = now.plus_millis(wait);
                self.put_off(at);
                Decision::At(at)
            }
        }
    }

    /// The wait before the next start; the one after that is twice as long.
    fn next_wait_ms(&mut self, settings: &Settings) -> u64 {
        let wait = self.wait_ms;
        let least = settings.get(Setting::RestartMinMs);
        let most = settings.get(Setting::RestartMaxMs).max(least);
        self.wait_ms = if wait == 0 { least } else { (wait * 2).min(most) };
        wait
    }

    /// Notes that a worker that is started on demand is given up at `now`. Returns when it may be
    /// tried again.
    pub(crate) fn gave_up(&mut self, now: Tick, settings: &Settings) -> Tick {
        let wait = self.next_wait_ms(settings).max(settings.get(Setting::RestartMinMs));
        let at = now.plus_millis(wait);
        self.put_off(at);
        at
    }

    /// Notes that no start on demand is to come before this tick.
    pub(crate) const fn put_off(&mut self, until: Tick) {
        self.not_before = Some(until);
    }

    /// The tick before which no start on demand may come.
    pub(crate) const fn not_before(&self) -> Option<Tick> {
        self.not_before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Tick {
        Tick::from_millis(ms)
    }

    #[test]
    fn first_at_once_then_doubling_until_a_quiet_minute() {
        let (mut restart, settings) = (Restart::default(), Settings::default());
        let mut end = |now, ready: Option<u64>| restart.ended(at(now), ready.map(at), &settings);
        assert_eq!(end(0, Some(0)), Decision::Now);
        assert_eq!(end(100, Some(50)), Decision::At(at(1100)));
        assert_eq!(end(2000, Some(1200)), Decision::At(at(4000)));
        assert_eq!(end(9000, Some(5000)), Decision::At(at(13_000)));
        assert_eq!(end(80_000, Some(20_000)), Decision::Now);
    }

    #[test]
    fn five_ends_before_ready_or_ten_in_a_minute_are_too_many() {
        let settings = Settings::default();
        let mut restart = Restart::default();
        for n in 0..4 {
            let verdict = restart.ended(at(n * 40_000), None, &settings);
            assert!(!matches!(verdict, Decision::GiveUp(_)), "{n}: {verdict:?}");
        }
        let verdict = restart.ended(at(160_000), None, &settings);
        assert!(matches!(verdict, Decision::GiveUp(why) if why.contains("5 times before")));
        let mut restart = Restart::default();
        for n in 0..9 {
            assert!(!matches!(
                restart.ended(at(n * 100), Some(at(n * 100)), &settings),
                Decision::GiveUp(_)
            ));
        }
        let verdict = restart.ended(at(1000), Some(at(950)), &settings);
        assert!(matches!(verdict, Decision::GiveUp(why) if why.contains("10 times within")));
    }
}
