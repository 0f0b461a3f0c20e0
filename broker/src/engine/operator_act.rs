//! What an operator said, and when: the reason of a state.

use protocol::time::Tick;

/// A command that changed a state: when it came, and from whom.
#[derive(Clone, Debug, Default)]
pub(crate) struct OperatorAct {
    /// When it came.
    pub(crate) at: Tick,
    /// The command and its origin, as in `'pause echo' by client 3 (…)`; empty = there was none.
    pub(crate) by: String,
}
