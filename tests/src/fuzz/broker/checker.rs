//! Checks the engine from outside: it sees the inputs and the actions, keeps what each peer was
//! promised, and panics when a promise is broken. It does not look into the engine.

use protocol::errors::Ran;
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::ids::LinkId;
use std::collections::{BTreeMap, BTreeSet};

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
    /// The operator said that a service may repeat.
    pub may_repeat: bool,
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
            may_repeat: false,
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
        self.accepted.retain(|_, accepted| accepted.link != link);
        self.asked.retain(|(requester, _), _| *requester != link);
        self.watched.retain(|(requester, _)| *requester != link);
        if in_order {
            for accepted in self.accepted.values_mut() {
                accepted.with.remove(&link);
            }
        }
    }

    /// A data frame goes to a worker.
    pub fn to_worker(&mut self, link: LinkId, head: &Header) {
        assert!(head.attempt >= 1 && head.deadline_ms >= 1, "to {link}: {head:?}");
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
        }
    }

    /// The planted faults. Says whether the frame never reaches the client.
    fn deceives(&mut self, transaction: u64, ran: Option<Ran>, is_final: bool) -> bool {
        let counts = match self.sabotage {
            Sabotage::None | Sabotage::Duplicate => false,
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
            Sabotage::None | Sabotage::Echo | Sabotage::Lie | Sabotage::Duplicate => false,
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

    /// Checks, far past every deadline, that every request that wants an answer has one.
    pub fn check_all_answered(&self) {
        for (transaction, accepted) in &self.accepted {
            assert!(
                !accepted.wants_reply,
                "transaction {transaction} has no outcome after its deadline: {accepted:?}"
            );
        }
    }
}
