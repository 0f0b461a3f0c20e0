//! Carries out the engine's actions, in one exhaustive match. It never calls the engine.

use super::io::Io;
use super::log;
use crate::engine::action::{Action, Summary};
use crate::engine::input::Start;
use crate::engine::origin::Origin;
use crate::translate::outbound;

/// An answer with this many rows or more is formatted by a helper thread.
const LONG_ROWS: usize = 100;

impl Io {
    /// Carries out one action.
    pub(super) fn apply(&mut self, action: Action) {
        match action {
            Action::Send { link, frame } => self.send(link, frame),
            Action::Answer { link, head, reply, format } => {
                if reply.rows() < LONG_ROWS {
                    let frames = outbound::answer(head, &reply, format, self.limits.body);
                    frames.into_iter().for_each(|frame| self.send(link, frame));
                } else {
                    self.helpers.write(link, (head, reply, format), self.limits.body);
                }
            }
            Action::Challenge { link, role, target, claim } => {
                self.challenge(link, role, &target, &claim);
            }
            Action::Verify { link, proof } => self.verify(link, &proof),
            Action::Claim { link, host } => self.claim(link, host),
            Action::Prove { link, challenge } => self.prove(link, *challenge),
            Action::ReadTokens { requester } => self.reload(requester),
            Action::Start { link, start, has_secret } => {
                let given = Start { run: start.run, digest: start.digest };
                let secret = match has_secret {
                    true => self.state.key.sign(start.worker, given),
                    false => String::new(),
                };
                self.send(link, outbound::start(*start, secret));
            }
            Action::Close { link } => self.close(link),
            Action::ShutWrite { link } => self.shut_write(link),
            Action::AllowHalfClose { link } => self.allow_half_close(link),
            Action::StopReading { link } => self.stop_reading(link),
            Action::ResumeReading { link } => self.resume_reading(link),
            Action::Dial { host, address } => self.dial(host, address),
            Action::Store { number, lines } => self.store(number, lines),
            Action::Source { link, head, path } => self.helpers.read_script(link, head, path),
            Action::Record(fact) => log::fact(&fact),
            Action::ScriptDone { origin, summary, failures } => {
                self.script_done(&origin, summary, &failures);
            }
            Action::End(how) => self.exit = Some(how),
        }
    }

    fn script_done(&mut self, origin: &Origin, summary: Summary, failures: &[String]) {
        match origin {
            // At the start, failures end the broker; later, the engine answers the operator itself.
            Origin::File(path) if self.is_starting => {
                tracing::info!("--source {path}: {summary}");
                self.failures.extend(failures.iter().map(|failure| format!("{path}: {failure}")));
            }
            // Whoever keeps the configuration has told of those of the saved one.
            Origin::State | Origin::File(_) | Origin::Operator { .. } => {}
            Origin::Broker => {
                for failure in failures {
                    tracing::error!("--set: {failure}");
                }
            }
        }
    }
}
