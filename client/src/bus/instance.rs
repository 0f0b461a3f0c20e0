//! An instance of this program that the broker watches, as the program sees it.

use super::Bus;
use super::shared::Shared;
use crate::clock;
use crate::error::Error;
use crate::instances::{Figures, InstanceOptions, Standing, short};
use protocol::ErrorCode;
use protocol::instances::InstanceState;
use std::fmt;
use std::sync::Arc;

/// An instance that was announced. It is watched until it is withdrawn, displaced, or the
/// connection ends; dropping this handle does not end it.
pub struct Instance {
    shared: Arc<Shared>,
    id: u64,
    figures: Arc<Figures>,
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Instance {
    pub(super) fn announce(bus: &Bus, options: InstanceOptions) -> Result<Self, Error> {
        let shared = Arc::clone(&bus.0);
        let timeout = shared.options.answer_timeout;
        let (id, figures) = shared.with(|state| {
            let sequence = state.session.number();
            let (id, frame) = state.session.instances.announce(options, sequence)?;
            // If it can't be sent now, the next connection announces it.
            let _ = state.send(frame, timeout);
            let figures = state.session.instances.figures(id).unwrap_or_default();
            Ok::<_, Error>((id, figures))
        })?;
        let until = Some(clock::until(timeout));
        let answer = shared.wait(until, |state| match state.session.instances.standing(id) {
            Standing::Asked => None,
            Standing::Watched(_) => Some(Ok(())),
            Standing::Ended(error) => Some(Err(error)),
        })?;
        match answer {
            Some(Ok(())) => Ok(Self { shared, id, figures }),
            Some(Err(error)) => Err(error),
            None => {
                let millis = timeout.as_millis();
                let text = format!("the broker did not answer an announce within {millis} ms");
                shared.with(|state| state.session.instances.withdraw(id, true, "", 0));
                Err(Error::new(ErrorCode::Timeout, text))
            }
        }
    }

    /// The id of the instance.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// How far the broker is with it: whether it watches it, or why it does so no more. An instance
    /// that was displaced by another program of its name and id is known from the next beat on.
    pub fn standing(&self) -> Standing {
        self.shared.lock().session.instances.standing(self.id)
    }

    /// Says that it has another state; of the text the first 80 characters count. It counts as a
    /// beat. Without a connection the next one is told.
    ///
    /// # Errors
    /// The broker does not watch it any more.
    pub fn set_state(&self, state: InstanceState, text: &str) -> Result<(), Error> {
        let (id, timeout) = (self.id, self.shared.options.answer_timeout);
        self.shared.with(|shared| {
            let number = shared.session.number();
            let frame = shared.session.instances.set_state(id, state, &short(text), number)?;
            // The next connection says it again.
            let _ = shared.send(frame, timeout);
            Ok(())
        })
    }

    /// As [`set_state`](Self::set_state), with a state of its own: a number from 100 on, which
    /// [`InstanceOptions::state_name`] may have named. It counts as running.
    ///
    /// # Errors
    /// As [`set_state`](Self::set_state), or the number is below 100.
    pub fn set_own_state(&self, number: u32, text: &str) -> Result<(), Error> {
        if number < protocol::instances::OWN_STATE_MIN {
            let min = protocol::instances::OWN_STATE_MIN;
            let text = format!("state {number} is isect's own; an instance's are from {min} on");
            return Err(Error::new(ErrorCode::BadInstance, text));
        }
        self.set_state(InstanceState::Own(number), text)
    }

    /// Notes a checkpoint, any number that changes as the instance works. The next beat carries it;
    /// this costs no system call.
    pub fn checkpoint(&self, checkpoint: u64) {
        self.figures.set_checkpoint(checkpoint);
    }

    /// Notes whether it has nothing to do, so that its checkpoint need not change. The next beat
    /// carries it.
    pub fn idle(&self, is_idle: bool) {
        self.figures.set_idle(is_idle);
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// There is no connection; the broker learned the end of the last one.
    pub fn withdraw(self, text: &str) -> Result<(), Error> {
        self.end(false, text)
    }

    /// Ends it because of a failure.
    ///
    /// # Errors
    /// As [`withdraw`](Self::withdraw).
    pub fn fail(self, text: &str) -> Result<(), Error> {
        self.end(true, text)
    }

    fn end(self, failed: bool, text: &str) -> Result<(), Error> {
        let timeout = self.shared.options.answer_timeout;
        self.shared.with(|state| {
            let number = state.session.number();
            match state.session.instances.withdraw(self.id, failed, &short(text), number) {
                Some(frame) => state.send(frame, timeout),
                None => Ok(()),
            }
        })
    }
}
