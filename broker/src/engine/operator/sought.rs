//! What `why` and `cancel` look for, while they do. `seek` looks.

use crate::engine::dispatch::transaction::Transaction;
use crate::engine::keys::TransactionKey;
use protocol::op::spec::{RequestName, WhyOf};
use protocol::{Header, LinkId, OpRequest, TransactionId};

/// A command that looks for requests.
#[derive(Debug)]
pub(crate) struct Seek {
    /// Who asked; it may be gone by then.
    pub(crate) link: LinkId,
    pub(super) head: Header,
    pub(super) what: Sought,
    /// The slot of the table that is looked at next.
    pub(super) next: usize,
    pub(super) found: Vec<(TransactionKey, TransactionId)>,
    /// All were looked at, or the only one was found.
    pub(crate) is_done: bool,
}

impl Seek {
    /// A command of which nothing is found yet.
    pub(super) const fn new((link, head): (LinkId, Header), what: Sought) -> Self {
        Self { link, head, what, next: 0, found: Vec::new(), is_done: false }
    }
}

/// What a command looks for, and for what.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sought {
    /// To show it.
    Why(WhyOf),
    /// To give it up.
    Cancel(RequestName),
}

impl Sought {
    /// Whether a request is meant.
    pub(super) fn is(self, transaction: &Transaction) -> bool {
        match self {
            Self::Why(WhyOf::Request(RequestName::Transaction(id)))
            | Self::Cancel(RequestName::Transaction(id)) => transaction.id == id,
            Self::Why(WhyOf::Request(RequestName::Sent(client, sequence)))
            | Self::Cancel(RequestName::Sent(client, sequence)) => {
                transaction.trace.client == client && transaction.head.sequence == sequence
            }
            Self::Why(WhyOf::Trace(id)) => transaction.head.trace_id == id,
            Self::Why(WhyOf::Kept) => false,
        }
    }

    /// The number of the only one that it can be.
    pub(super) const fn only(self) -> Option<TransactionId> {
        match self {
            Self::Why(WhyOf::Request(RequestName::Transaction(id)))
            | Self::Cancel(RequestName::Transaction(id)) => Some(id),
            Self::Why(WhyOf::Kept | WhyOf::Trace(_) | WhyOf::Request(RequestName::Sent(..)))
            | Self::Cancel(RequestName::Sent(..)) => None,
        }
    }

    /// The command.
    pub(super) const fn request(self) -> OpRequest {
        match self {
            Self::Why(of) => OpRequest::Why(of),
            Self::Cancel(name) => OpRequest::Cancel(name),
        }
    }
}
