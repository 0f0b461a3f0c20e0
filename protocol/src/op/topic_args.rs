//! Reads the arguments of the commands about topics, as `args` does those of the others.

use super::args::Args;
use super::parse::OpError;
use super::spec::SubscriptionsOf;
use crate::topics::Pattern;

impl Args<'_> {
    /// Takes a pattern of topics.
    pub(super) fn pattern(&mut self) -> Result<Pattern, OpError> {
        let word = self.next("pattern")?;
        Pattern::new(word).map_err(|text| self.error(text))
    }

    /// Takes `client CLIENTID`, `worker WORKERID`, `all` or a pattern of topics.
    pub(super) fn subscriptions_of(&mut self) -> Result<SubscriptionsOf, OpError> {
        let is_last = self.words.len() == self.at + 1;
        match self.peek() {
            Some("all") if is_last => {
                self.at += 1;
                Ok(SubscriptionsOf::All)
            }
            Some("client") if !is_last => {
                self.at += 1;
                self.client().map(SubscriptionsOf::Client)
            }
            Some("worker") if !is_last => {
                self.at += 1;
                self.worker().map(SubscriptionsOf::Worker)
            }
            Some(_) | None => self.pattern().map(SubscriptionsOf::Pattern),
        }
    }
}
