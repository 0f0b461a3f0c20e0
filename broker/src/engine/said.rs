//! What an operator said, and when: the reason of a state.

use protocol::time::Tick;

/// When somebody said something, and who: an operator, as facts name him.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    /// When it was said.
    pub(crate) at: Tick,
    /// What and who; empty = it is so from the beginning.
    pub(crate) by: String,
}
