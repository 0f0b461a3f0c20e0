//! Checks the engine from outside: it sees the inputs and the actions, keeps what each peer was
//! promised, and panics when a promise is broken. It does not look into the engine.

use protocol::errors::Ran;
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::ids::LinkId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How a broker that is not to be trusted deceives: it shows that the checker can say no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// The broker keeps all rules.
    None,
    /// It keeps the third answer to itself.
    Silence,
    /// It gives the third answer twice.
    Echo,
    /// It says of the second failure that the work did not run.
    Lie,
    /// It gives the second request to two workers.
    Duplicate,
    /// It sends a live message twice.
    MessageTwice,
    /// It does not answer a publish.
    Unanswered,
    /// It sends a message to a subscription of another number.
    WrongSubscription,
}

/// A request that was accepted.
#[derive(Clone, Debug)]
struct Accepted {
    link: LinkId,
    sequence: u32,
    wants_reply: bool,
    is_idempotent: bool,
    /// Workers that were given it and may have begun it.
    with: BTreeSet<LinkId>,
    /// A part of its answer was sent: it may have no deadline any more.
    has_part: bool,
}

/// What a worker was given on its connection.
#[derive(Clone, Debug, Default)]
struct Given {
    /// The transactions, in order.
    sent: Vec<u64>,
    /// Those that it answered.
    answered: BTreeSet<u64>,
}

/// A promise that is not yet kept.
#[derive(Debug)]
pub struct Checker {
    sabotage: Sabotage,
    seen: u32,
    accepted: BTreeMap<u64, Accepted>,
    ended: BTreeSet<u64>,
    /// Operator commands that wait for an answer, with how many.
    asked: BTreeMap<(LinkId, u32), u32>,
    /// Answers that go on.
    watched: BTreeSet<(LinkId, u32)>,
    given: BTreeMap<LinkId, Given>,
    /// Flushes that wait for an answer, oldest first.
    flushes: BTreeMap<LinkId, VecDeque<u32>>,
    /// The operator said that a service may repeat.
    pub may_repeat: bool,
    /// Conversations of a service may have no deadline.
    pub may_park: bool,
}

impl Checker {
    /// Nobody was promised anything.
    pub fn new(sabotage: Sabotage) -> Self {
        Self {
            sabotage,
            seen: 0,
            accepted: BTreeMap::new(),
            ended: BTreeSet::new(),
            asked: BTreeMap::new(),
            watched: BTreeSet::new(),
            given: BTreeMap::new(),
            flushes: BTreeMap::new(),
            may_repeat: false,
            may_park: false,
        }
    }

    /// The broker accepted a request and called it `transaction`.
    pub fn accepted(&mut self, transaction: u64, link: LinkId, head: &Header) {
        let accepted = Accepted {
            link,
            sequence: head.sequence,
            wants_reply: head.reply != 0,
            is_idempotent: head.is_idempotent(),
            with: BTreeSet::new(),
            has_part: false,
        };
        let before = self.accepted.insert(transaction, accepted);
        assert!(before.is_none(), "transaction {transaction} is two requests");
    }

    /// A command for the operator's service.
    pub fn asked(&mut self, link: LinkId, head: &Header) {
        if head.reply != 0 {
            *self.asked.entry((link, head.sequence)).or_default() += 1;
        }
    }

    /// A link is gone: nobody waits there, and who worked there has closed in order or not.
    pub fn link_gone(&mut self, link: LinkId, in_order: bool) {
        // What wants no reply outlives its client.
        self.accepted.retain(|_, accepted| accepted.link != link || !accepted.wants_reply);
        self.flushes.remove(&link);
        self.given.remove(&link);
        self.asked.retain(|(requester, _), _| *requester != link);
        self.watched.retain(|(requester, _)| *requester != link);
        if in_order {
            for accepted in self.accepted.values_mut() {
                accepted.with.remove(&link);
            }
        }
    }

    /// An operator said this.
    pub fn said(&mut self, text: &str) {
        self.may_repeat |= text.contains("retry");
        self.may_park |= text.contains("open_ended");
    }

    /// A client or worker logs out. A worker that says how many requests it got may have begun
    /// those, unless it answered a later one, and can't count.
    pub fn logs_out(&mut self, link: LinkId, received: Option<u32>) {
        let Some(given) = self.given.get(&link).filter(|_| received.is_some()) else {
            return self.link_gone(link, true);
        };
        let received = received.unwrap_or(0) as usize;
        let crossed = given.sent.get(received..).unwrap_or_default();
        let can_count = !crossed.iter().any(|at| given.answered.contains(at));
        for (id, accepted) in &mut self.accepted {
            if !can_count || crossed.contains(id) {
                accepted.with.remove(&link);
            }
        }
    }

    /// A worker has answered a request.
    pub fn worker_answered(&mut self, link: LinkId, transaction: u64) {
        self.given.entry(link).or_default().answered.insert(transaction);
    }

    /// A client wants to know when all was taken.
    pub fn flushes(&mut self, link: LinkId, sequence: u32, is_known: bool) {
        if is_known {
            self.flushes.entry(link).or_default().push_back(sequence);
        }
    }

    /// It is told.
    pub fn flushed(&mut self, link: LinkId, sequence: u32) {
        let oldest = self.flushes.get_mut(&link).and_then(VecDeque::pop_front);
        assert_eq!(oldest, Some(sequence), "{link} is told that all was taken");
    }

    /// A data frame goes to a worker.
    pub fn to_worker(&mut self, link: LinkId, head: &Header) {
        let given = self.given.entry(link).or_default();
        if !given.sent.contains(&head.transaction) {
            given.sent.push(head.transaction);
        }
        let is_timed = head.deadline_ms >= 1 || self.may_park;
        assert!(head.attempt >= 1 && is_timed, "to {link}: {head:?}");
        assert!(!self.ended.contains(&head.transaction), "what has ended is given out: {head:?}");
        let Some(accepted) = self.accepted.get_mut(&head.transaction) else { return };
        if accepted.with.insert(link) {
            self.seen += u32::from(self.sabotage == Sabotage::Duplicate);
            if self.seen == 2 {
                accepted.with.insert(LinkId::default());
            }
            let is_allowed = accepted.is_idempotent || self.may_repeat;
            assert!(accepted.with.len() == 1 || is_allowed, "given out twice: {accepted:?}");
        }
    }

    /// A frame goes to a client of a service that is not `op`.
    pub fn to_client(&mut self, link: LinkId, frame: &Frame) {
        match frame {
            Frame::Data { head, .. } => self.answered(link, head, None, head.more == 0),
            Frame::Error { head, error } if head.transaction != 0 => {
                self.answered(link, head, Some(error.ran), true);
            }
            _ => {}
        }
    }

    fn answered(&mut self, link: LinkId, head: &Header, ran: Option<Ran>, is_final: bool) {
        let transaction = head.transaction;
        if self.deceives(transaction, ran, is_final) {
            return;
        }
        assert!(!self.ended.contains(&transaction), "transaction {transaction} has two outcomes");
        let accepted = self.accepted.get(&transaction);
        let accepted = accepted.unwrap_or_else(|| panic!("an answer to nobody: {head:?}"));
        assert_eq!((accepted.link, accepted.sequence), (link, head.sequence), "{head:?}");
        assert!(accepted.wants_reply, "an answer that is not wanted: {head:?}");
        assert!(
            ran != Some(Ran::No) || accepted.with.is_empty(),
            "it is said not to have run: {accepted:?}"
        );
        if is_final {
            self.accepted.remove(&transaction);
            self.ended.insert(transaction);
        } else if let Some(accepted) = self.accepted.get_mut(&transaction) {
            accepted.has_part = true;
        }
    }

    /// The planted faults. Says whether the frame never reaches the client.
    fn deceives(&mut self, transaction: u64, ran: Option<Ran>, is_final: bool) -> bool {
        let counts = match self.sabotage {
            Sabotage::None
            | Sabotage::Duplicate
            | Sabotage::MessageTwice
            | Sabotage::Unanswered
            | Sabotage::WrongSubscription => false,
            Sabotage::Silence | Sabotage::Echo => is_final,
            Sabotage::Lie => ran == Some(Ran::Maybe),
        };
        self.seen += u32::from(counts);
        match self.sabotage {
            Sabotage::Silence => counts && self.seen == 3,
            Sabotage::Echo if counts && self.seen == 3 => {
                self.ended.insert(transaction);
                false
            }
            Sabotage::Lie if counts && self.seen == 2 => {
                let accepted = self.accepted.get(&transaction);
                assert!(accepted.is_none_or(|a| a.with.is_empty()), "a lie is seen");
                false
            }
            Sabotage::None
            | Sabotage::Echo
            | Sabotage::Lie
            | Sabotage::Duplicate
            | Sabotage::MessageTwice
            | Sabotage::Unanswered
            | Sabotage::WrongSubscription => false,
        }
    }

    /// An operator's command is answered; what is watched goes on.
    pub fn to_operator(&mut self, link: LinkId, head: &Header) {
        // A client that reuses the sequence of a watch gets answers to both.
        if head.more != 0 {
            self.watched.insert((link, head.sequence));
        }
        if self.watched.contains(&(link, head.sequence)) {
            return;
        }
        let left = self.asked.get_mut(&(link, head.sequence));
        let left = left.unwrap_or_else(|| panic!("op answers what was not asked: {head:?}"));
        *left -= 1;
        if *left == 0 {
            self.asked.remove(&(link, head.sequence));
        }
    }

    /// This was begun and will go on for ever.
    pub fn watches(&mut self, link: LinkId, sequence: u32) -> bool {
        self.asked.contains_key(&(link, sequence))
    }

    /// Checks, far past every deadline, that every request that wants an answer has one, and every
    /// flush.
    pub fn check_all_answered(&self) {
        for (transaction, accepted) in &self.accepted {
            assert!(
                !accepted.wants_reply || self.may_park && accepted.has_part,
                "transaction {transaction} has no outcome after its deadline: {accepted:?}"
            );
        }
        let waiting = self.flushes.iter().find(|(_, flushes)| !flushes.is_empty());
        assert!(waiting.is_none(), "a flush has no answer: {waiting:?}");
    }
}
