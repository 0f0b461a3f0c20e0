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

macro_rules! limits {
    ($($(#[$doc:meta])* $limit:ident: $type:ty = $usual:expr,)*) => {
        /// The limits in force.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Limits {
            $($(#[$doc])* pub $limit: $type,)*
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($limit: $usual,)* }
            }
        }
    };
}

limits! {
    /// Most processes at once, for all brokers together; at most [`CHILDREN_CAP`].
    children_max: usize = 1024,
    /// Starts per second after a burst.
    starts_per_second: u32 = 200,
    /// Starts that may come at once.
    starts_burst: u32 = 1024,
    /// Milliseconds after which a broker should repeat a start, when execd has no room for it.
    full_again_ms: u64 = 1000,
    /// Lines per second of one child after a burst.
    lines_per_second: u32 = 100,
    /// Lines of one child that may come at once.
    lines_burst: u32 = 200,
    /// Lines per second of all children together after a burst.
    all_lines_per_second: u32 = 5000,
    /// Lines of all children together that may come at once.
    all_lines_burst: u32 = 10_000,
    /// Most last lines of stderr in the report of an exit.
    tail_lines_max: usize = 20,
    /// Most connections at once.
    links_max: usize = 16,
    /// Most brokers whose children or reports are kept.
    brokers_max: usize = 16,
    /// Most reports that are kept for a broker that is away; past that the oldest is dropped.
    reports_max: usize = 1024,
    /// Most bytes of last lines in the reports kept for a broker; past that the oldest report is
    /// dropped.
    reports_bytes_max: usize = 4 << 20,
    /// Milliseconds within which a new connection must say hello.
    hello_ms: u64 = 2000,
    /// Milliseconds of silence after which a broker is pinged.
    ping_ms: u64 = 1000,
    /// Milliseconds of silence after which a broker is taken for gone.
    silence_ms: u64 = 3000,
    /// Most milliseconds between TERM and KILL that a broker may ask for.
    grace_ms_max: u64 = 3_600_000,
    /// Milliseconds between TERM and KILL when execd itself ends.
    shutdown_grace_ms: u64 = 5000,
    /// Milliseconds that brokers have to end their workers in order when execd itself is to end;
    /// then they get TERM. 0 = they get it at once.
    drain_ms: u64 = 30_000,
    /// Milliseconds after which execd ends although a killed child is stuck in the kernel.
    give_up_ms: u64 = 15_000,
    /// Milliseconds to wait for the last output after an exit; only needed if a process left its
    /// group.
    output_wait_ms: u64 = 100,
    /// Milliseconds after which a built-in execd without broker and children ends.
    idle_ms: u64 = 60_000,
    /// Milliseconds without a broker after which execd ends its children and itself; 0 = never.
    orphan_ms: u64 = 0,
}
