//! What `dispatch` tells `supervision` of a worker that is lost.

/// What a worker had when it was lost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Had {
    /// It had a request.
    pub(crate) is_busy: bool,
    /// For how many milliseconds it may go on working at it.
    pub(crate) work_ms: u64,
    /// It had answered a request on the connection.
    pub(crate) has_answered: bool,
}
