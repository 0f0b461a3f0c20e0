//! Reads the arguments of the commands about topics.

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
        let is_last = self.is_last();
        match self.peek() {
            Some("all") if is_last => self.skip(SubscriptionsOf::All),
            Some("client") if !is_last => {
                self.skip(())?;
                self.client().map(SubscriptionsOf::Client)
            }
            Some("worker") if !is_last => {
                self.skip(())?;
                self.worker().map(SubscriptionsOf::Worker)
            }
            Some(_) | None => self.pattern().map(SubscriptionsOf::Pattern),
        }
    }
}
