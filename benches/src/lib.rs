//! A benchmark of isect and of comparable programs: one load generator drives all of them.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`shape`], [`payload`] | how many of what; bytes that can be checked |
//! | [`sock`], [`protocols`] | sockets; how each peer is spoken to, pure |
//! | [`load`], [`echo`], [`relay`] | clients; workers; the bare relay `limit` |
//! | [`peers`], [`proc`] | TABLE of peers, and their processes |
//! | [`round`], [`table`] | interleaved rounds; their result |
//! | [`memory`], [`restart`], [`demand`], [`syscalls`] | what is measured besides |
//! | [`fairness`], [`noise`] | small requests beside clients that are a burden |
//! | [`output`] | a worker that writes very much |
//! | [`steps`], [`budgets`] | the broker's single steps, and what they may cost |
//! | [`topics`] | what is published to many, subscriptions, values that are kept, instances |
//! | [`worst`] | the worst step of each command and input, with all that a broker is to hold |
//! | [`usage`], [`clock`], [`stop`] | the kernel's figures; time; Ctrl-C |

pub mod budgets;
pub mod clock;
pub mod demand;
pub mod echo;
pub mod fairness;
pub mod json;
pub mod load;
pub mod memory;
pub mod noise;
pub mod output;
pub mod payload;
pub mod peers;
pub mod proc;
pub mod protocols;
pub mod relay;
pub mod restart;
pub mod round;
pub mod shape;
pub mod sock;
pub mod steps;
pub mod stop;
pub mod syscalls;
pub mod table;
pub mod topics;
pub mod usage;
pub mod worst;
