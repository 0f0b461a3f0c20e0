//! The black box: the last unexpected ends of workers' processes, each with the requests that the
//! worker had (`deaths`). The loss of a connection tells of the requests, the report of the host
//! of the end of the process; either may come first, or the worker comes back. What it had is
//! kept until that is known.

use super::death::{Death, LostRequests};
use super::law::law;
use protocol::{RunId, Setting, Settings, TransactionId, WorkerId};
use std::collections::{BTreeMap, VecDeque};

/// A death with the requests that the worker had.
#[derive(Debug)]
pub(crate) struct Kept {
    /// How the process ended.
    pub(crate) death: Death,
    /// What the worker had.
    pub(crate) lost: LostRequests,
}

impl Kept {
    fn size(&self) -> u64 {
        self.death.size() + self.lost.size()
    }
}

/// What a worker had that may have died.
#[derive(Debug)]
struct Pending {
    run: RunId,
    lost: LostRequests,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct BlackBox {
    /// Oldest first.
    deaths: VecDeque<Kept>,
    /// About how many bytes they take.
    bytes: u64,
    /// What those workers had whose connection is lost and whose end is not known yet. It has
    /// bounds of its own, as large: a machine that is out of reach for a while pushes out no death.
    pending: BTreeMap<WorkerId, Pending>,
    /// About how many bytes that takes.
    pending_bytes: u64,
}

impl BlackBox {
    /// The deaths that are kept, newest first.
    pub(crate) fn newest(&self) -> impl Iterator<Item = &Kept> {
        self.deaths.iter().rev()
    }

    /// How many are kept.
    pub(crate) fn count(&self) -> usize {
        self.deaths.len()
    }

    /// The one with this number, if it is kept.
    pub(crate) fn find(&self, id: u64) -> Option<&Kept> {
        let at = self.deaths.binary_search_by_key(&id, |kept| kept.death.id).ok()?;
        self.deaths.get(at)
    }

    /// The numbers of those that had a request, newest first.
    pub(crate) fn with(&self, transaction: TransactionId) -> impl Iterator<Item = u64> {
        let had = move |kept: &&Kept| {
            kept.lost.kept.iter().any(|request| request.transaction == transaction)
        };
        self.newest().filter(had).map(|kept| kept.death.id)
    }

    /// A worker lost its connection while it had something, and its process may end, too.
    pub(crate) fn lost(
        &mut self,
        worker: WorkerId,
        run: RunId,
        mut lost: LostRequests,
        settings: &Settings,
    ) {
        self.settled(worker);
        let most = settings.get(Setting::DeathsBytesMax);
        if self.pending_bytes + lost.size() > most {
            lost.drop_bytes();
        }
        let size = lost.size();
        if self.pending_bytes + size <= most {
            self.pending_bytes += size;
            self.pending.insert(worker, Pending { run, lost });
        }
    }

    /// A worker came back, ended in order or is forgotten: what it had is of no interest.
    pub(crate) fn settled(&mut self, worker: WorkerId) {
        self.take(worker);
    }

    fn take(&mut self, worker: WorkerId) -> Option<Pending> {
        let pending = self.pending.remove(&worker)?;
        self.pending_bytes -= pending.lost.size();
        Some(pending)
    }

    /// A process ended unexpectedly.
    pub(crate) fn add(&mut self, death: Death, settings: &Settings) {
        let pending = self.take(death.worker).filter(|pending| pending.run == death.run);
        let lost = pending.map(|pending| pending.lost).unwrap_or_default();
        let mut kept = Kept { death, lost };
        if kept.size() > settings.get(Setting::DeathsBytesMax) {
            kept.lost.drop_bytes();
        }
        self.bytes += kept.size();
        self.deaths.push_back(kept);
        self.drop_oldest(settings);
    }

    /// Keeps no more than the settings allow.
    pub(crate) fn drop_oldest(&mut self, settings: &Settings) {
        let most = settings.get(Setting::DeathsMax);
        let most_bytes = settings.get(Setting::DeathsBytesMax);
        while self.deaths.len() as u64 > most || self.bytes > most_bytes {
            let Some(oldest) = self.deaths.pop_front() else { return };
            self.bytes -= oldest.size();
        }
        while self.pending_bytes > most_bytes {
            let Some(worker) = self.pending.keys().next().copied() else { return };
            self.settled(worker);
        }
    }

    /// Forgets all deaths. Returns how many they were.
    pub(crate) fn clear(&mut self) -> usize {
        self.bytes = 0;
        std::mem::take(&mut self.deaths).len()
    }

    /// The workers whose end is not known yet, each with the start that had the requests.
    pub(crate) fn pending(&self) -> impl Iterator<Item = (WorkerId, RunId)> {
        self.pending.iter().map(|(worker, pending)| (*worker, pending.run))
    }

    /// Checks the counts, the bounds and the order.
    ///
    /// # Errors
    /// One is broken.
    pub(crate) fn check(&self, settings: &Settings) -> Result<(), String> {
        let most_bytes = settings.get(Setting::DeathsBytesMax);
        let bytes = self.deaths.iter().map(Kept::size).sum::<u64>();
        law!(bytes == self.bytes, "law 9: deaths take {bytes} bytes, counted are {}", self.bytes);
        let pending = self.pending.values().map(|pending| pending.lost.size()).sum::<u64>();
        let counted = self.pending_bytes;
        law!(pending == counted, "law 9: what was lost takes {pending} bytes, counted: {counted}");
        law!(bytes.max(pending) <= most_bytes, "law 9: deaths take {bytes} and {pending} bytes");
        let count = self.deaths.len() as u64;
        law!(count <= settings.get(Setting::DeathsMax), "law 9: {count} deaths are kept");
        let ids = || self.deaths.iter().map(|kept| kept.death.id);
        law!(ids().zip(ids().skip(1)).all(|(a, b)| a < b), "law 9: deaths are out of order");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::death::{LostRequest, LostState, ProcessReport};
    use bytes::Bytes;
    use protocol::{ExitCause, HostName, Micros, ServiceName, Wall};

    fn death(id: u64, worker: u32, run: u64) -> Death {
        let report = ProcessReport {
            pid: 7,
            exit_cause: ExitCause::Signal(11),
            cpu_ms: 0,
            rss_kib_max: 0,
            has_core: false,
            is_oom: false,
        };
        Death {
            id,
            at: Wall::default(),
            worker: WorkerId(worker),
            service: ServiceName::new("echo").expect("a name"),
            host: HostName::new("here").expect("a name"),
            run: RunId(run),
            ran: Micros(0),
            is_adopted: false,
            report,
            how: String::new(),
            killed: None,
            tail: Vec::new(),
            follows: String::new(),
        }
    }

    fn lost(transaction: u64, bytes: usize) -> LostRequests {
        let request = LostRequest {
            transaction: TransactionId(transaction),
            client: None,
            name: None,
            from: String::new(),
            sequence: 1,
            state: LostState::Runs,
            had: Micros(0),
            size: bytes as u64,
            bytes: vec![b'x'; bytes].into(),
        };
        LostRequests { kept: vec![request], more: 0 }
    }

    fn shown(black_box: &BlackBox, id: u64) -> Option<&Bytes> {
        black_box.find(id)?.lost.kept.first().map(|request| &request.bytes)
    }

    #[test]
    fn a_death_has_what_its_own_process_had() {
        let (mut black_box, settings) = (BlackBox::default(), Settings::default());
        black_box.lost(WorkerId(1), RunId(5), lost(9, 3), &settings);
        black_box.lost(WorkerId(2), RunId(6), lost(10, 3), &settings);
        black_box.add(death(1, 1, 4), &settings);
        assert_eq!(shown(&black_box, 1), None, "another start of this worker had it");
        black_box.add(death(2, 2, 6), &settings);
        assert_eq!(shown(&black_box, 2).map(Bytes::len), Some(3));
        assert_eq!(black_box.with(TransactionId(10)).collect::<Vec<_>>(), [2]);
        black_box.lost(WorkerId(2), RunId(7), lost(11, 3), &settings);
        black_box.settled(WorkerId(2));
        black_box.add(death(3, 2, 7), &settings);
        assert_eq!(shown(&black_box, 3), None, "it had come back");
        assert_eq!(black_box.check(&settings), Ok(()));
        assert_eq!(black_box.clear(), 3);
        assert_eq!(black_box.check(&settings), Ok(()));
    }

    #[test]
    fn bytes_are_bounded_and_those_of_requests_go_first() {
        let (mut black_box, mut settings) = (BlackBox::default(), Settings::default());
        settings.set(Setting::DeathsBytesMax, 5000);
        for worker in 1..=100 {
            black_box.lost(WorkerId(worker), RunId(1), lost(worker.into(), 1000), &settings);
            assert_eq!(black_box.check(&settings), Ok(()), "{worker}");
        }
        // The first ones are kept whole, then there is room for what is known of some more.
        let pending = black_box.pending().count();
        assert!((4..20).contains(&pending), "{pending}");
        for worker in 1..=100 {
            black_box.add(death(worker.into(), worker, 1), &settings);
            assert_eq!(black_box.check(&settings), Ok(()), "{worker}");
        }
        assert_eq!(black_box.pending().count(), 0);
        assert!(black_box.find(100).is_some() && black_box.find(1).is_none());
        black_box.lost(WorkerId(1), RunId(1), lost(1, 4900), &settings);
        black_box.add(death(101, 1, 1), &settings);
        assert_eq!(shown(&black_box, 101).map(Bytes::len), Some(0), "too large to be kept whole");
        settings.set(Setting::DeathsMax, 1);
        black_box.drop_oldest(&settings);
        assert_eq!((black_box.count(), black_box.find(101).is_some()), (1, true));
        settings.set(Setting::DeathsBytesMax, 0);
        black_box.drop_oldest(&settings);
        assert_eq!((black_box.count(), black_box.check(&settings)), (0, Ok(())));
    }
}
