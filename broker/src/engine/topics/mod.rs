//! The machine `topics`: who gets a published message. It owns the subscriptions, the values that
//! are kept, the last messages, and what waits for subscribers.
//!
//! | file | what it has |
//! | --- | --- |
//! | `machine` | what the machine owns; subscriptions begin and end |
//! | `tree` | the patterns of all subscriptions, by words: which of them a topic matches |
//! | `subscription` | one subscription: whose it is, and how far it is |
//! | `catch_up` | what a subscription is sent from before |
//! | `queue` | what waits for a subscription whose reader is too slow, and what is dropped of it |
//! | `peers` | what is known of a link: its subscriptions, its values, whether it takes more |
//! | `message` | a message and its topic; one on its way |
//! | `retained` | the last message of each topic that is kept |
//! | `removals` | values that are kept no longer, and who is told |
//! | `ring` | the last messages, for subscribers that come back |
//! | `fan_out` | a message goes to its subscriptions, some in a step |
//! | `drain` | what waits is sent when there is room |
//! | `drops` | the facts about messages that were dropped |
//! | `view` | what the commands show |
//! | `laws` | what must hold after each step |

mod catch_up;
mod drain;
mod drops;
mod fan_out;
mod laws;
pub(crate) mod machine;
mod message;
mod peers;
mod queue;
mod removals;
mod retained;
mod ring;
pub(crate) mod subscription;
#[cfg(test)]
mod tests;
mod tree;
pub(crate) mod view;

pub(crate) use machine::Topics;
pub(crate) use peers::Party;
