//! Every bound of execd, by name, with its default. Not where they are enforced: the file that owns
//! the bounded thing does that.

/// Most children there may ever be: an `exec-listed` of all of them still fits into one frame.
pub const CHILDREN_CAP: usize = 4000;

/// Most bytes of a line of output; the rest of the line is dropped. As each byte may become the
/// three of U+FFFD, a line still is a value of a control body.
pub const LINE_BYTES_MAX: usize = 2048;

/// Most bytes of all arguments of one program, each with its end.
pub const ARGUMENT_BYTES_MAX: usize = 128 << 10;

/// Most bytes of the environment that children get.
pub const ENVIRONMENT_BYTES_MAX: usize = 64 << 10;

const _: () = assert!(LINE_BYTES_MAX * 3 + 8 < protocol::limits::VALUE_BYTES_MAX);
const _: () = assert!(CHILDREN_CAP < protocol::limits::LINES_MAX);
const _: () = assert!(CHILDREN_CAP * 62 < protocol::limits::CONTROL_BODY_BYTES_MAX);

/// The bounds in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most processes at once, of all brokers; at most [`CHILDREN_CAP`].
    pub children_max: usize,
    /// Starts per second that are sustained.
    pub starts_per_second: u32,
    /// Starts at once before the rate counts.
    pub starts_burst: u32,
    /// When to ask again for a start that finds no room.
    pub full_again_ms: u64,
    /// Lines per second of one child that are passed on.
    pub lines_per_second: u32,
    /// Lines of one child at once before the rate counts.
    pub lines_burst: u32,
    /// Lines per second of all children together that are passed on.
    pub all_lines_per_second: u32,
    /// Lines of all children together at once before that rate counts.
    pub all_lines_burst: u32,
    /// Last lines of stderr that go into an exit report.
    pub tail_lines_max: usize,
    /// Most connections at once.
    pub links_max: usize,
    /// Most brokers whose children or reports are kept.
    pub brokers_max: usize,
    /// Most reports kept for a broker that is away; past it the oldest goes.
    pub reports_max: usize,
    /// Most bytes of last lines in the reports kept for a broker; past it the oldest goes.
    pub reports_bytes_max: usize,
    /// Time for a new connection to say hello.
    pub hello_ms: u64,
    /// A broker that is silent this long is pinged.
    pub ping_ms: u64,
    /// A broker that is silent this long is gone.
    pub silence_ms: u64,
    /// Longest time between TERM and KILL that a broker may ask for.
    pub grace_ms_max: u64,
    /// Time between TERM and KILL when execd itself ends.
    pub leave_grace_ms: u64,
    /// After this time execd ends although a child does not: killed, but stuck in the kernel.
    pub give_up_ms: u64,
    /// Time after an exit for the last output to arrive. Only what outlives its group needs it.
    pub drain_ms: u64,
    /// A built-in execd without broker and without children ends after this time.
    pub idle_ms: u64,
    /// Without a broker for this time, execd ends its children and itself; 0 = never.
    pub orphan_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            children_max: 1024,
            starts_per_second: 200,
            starts_burst: 1024,
            full_again_ms: 1000,
            lines_per_second: 100,
            lines_burst: 200,
            all_lines_per_second: 5000,
            all_lines_burst: 10_000,
            tail_lines_max: 20,
            links_max: 16,
            brokers_max: 16,
            reports_max: 1024,
            reports_bytes_max: 4 << 20,
            hello_ms: 2000,
            ping_ms: 1000,
            silence_ms: 3000,
            grace_ms_max: 3_600_000,
            leave_grace_ms: 5000,
            give_up_ms: 15_000,
            drain_ms: 100,
            idle_ms: 60_000,
            orphan_ms: 0,
        }
    }
}
