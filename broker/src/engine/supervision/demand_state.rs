//! Whether the workers of a service are asked for; `demand` says when that changes.

use protocol::Tick;

/// Whether the workers of a service that is started on demand are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Demand {
    /// They are not: those that still run are ending, and none is started.
    Down,
    /// A request or a login came. They run, start, or wait for the end of their backoff.
    Up {
        /// When that was, or when the service was last found in use.
        at: Tick,
        /// When it is looked at again; `None` = never (`idle_stop_ms` is 0).
        look: Option<Tick>,
    },
}
