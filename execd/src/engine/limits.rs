//! Every limit of execd with its name and default. The file that owns the limited thing enforces
//! it.

/// Highest value of `children_max`: an `exec-listed` with so many children still fits into one
/// frame.
pub const CHILDREN_CAP: usize = 4000;

/// Most bytes of a line of output; the rest of the line is dropped. Each byte may become the three
/// bytes of U+FFFD, and a line still fits into a value of a control body.
pub const LINE_BYTES_MAX: usize = 2048;

/// Most bytes of all arguments of one program, each with its terminating zero.
pub const ARGUMENT_BYTES_MAX: usize = 128 << 10;

/// Most bytes of the environment that children get.
pub const ENVIRONMENT_BYTES_MAX: usize = 64 << 10;

const _: () = assert!(LINE_BYTES_MAX * 3 + 8 < protocol::limits::VALUE_BYTES_MAX);
const _: () = assert!(CHILDREN_CAP < protocol::limits::LINES_MAX);
const _: () = assert!(CHILDREN_CAP * 62 < protocol::limits::CONTROL_BODY_BYTES_MAX);

/// The limits in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most processes at once, for all brokers together; at most [`CHILDREN_CAP`].
    pub children_max: usize,
    /// Starts per second after a burst.
    pub starts_per_second: u32,
    /// Starts that may come at once.
    pub starts_burst: u32,
    /// Milliseconds after which a broker should repeat a start, when execd has no room for it.
    pub full_again_ms: u64,
    /// Lines per second of one child after a burst.
    pub lines_per_second: u32,
    /// Lines of one child that may come at once.
    pub lines_burst: u32,
    /// Lines per second of all children together after a burst.
    pub all_lines_per_second: u32,
    /// Lines of all children together that may come at once.
    pub all_lines_burst: u32,
    /// Most last lines of stderr in the report of an exit.
    pub tail_lines_max: usize,
    /// Most connections at once.
    pub links_max: usize,
    /// Most brokers whose children or reports are kept.
    pub brokers_max: usize,
    /// Most reports that are kept for a broker that is away; past that the oldest is dropped.
    pub reports_max: usize,
    /// Most bytes of last lines in the reports kept for a broker; past that the oldest report is
    /// dropped.
    pub reports_bytes_max: usize,
    /// Milliseconds within which a new connection must say hello.
    pub hello_ms: u64,
    /// Milliseconds of silence after which a broker is pinged.
    pub ping_ms: u64,
    /// Milliseconds of silence after which a broker is taken for gone.
    pub silence_ms: u64,
    /// Most milliseconds between TERM and KILL that a broker may ask for.
    pub grace_ms_max: u64,
    /// Milliseconds between TERM and KILL when execd itself ends.
    pub shutdown_grace_ms: u64,
    /// Milliseconds after which execd ends although a killed child is stuck in the kernel.
    pub give_up_ms: u64,
    /// Milliseconds to wait for the last output after an exit; only needed if a process left its
    /// group.
    pub output_wait_ms: u64,
    /// Milliseconds after which a built-in execd without broker and children ends.
    pub idle_ms: u64,
    /// Milliseconds without a broker after which execd ends its children and itself; 0 = never.
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
            shutdown_grace_ms: 5000,
            give_up_ms: 15_000,
            output_wait_ms: 100,
            idle_ms: 60_000,
            orphan_ms: 0,
        }
    }
}
