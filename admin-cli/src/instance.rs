//! The thread of `announce` that is with the broker: it announces the program, says that it goes
//! on, and tells its end. While there is no broker it tries again.

use crate::lines::Line;
use client::address::Address;
use client::bus::{Bus, Instance, InstanceOptions, InstanceState, Options, Standing};
use client::error::{Code, Error};
use client::retry::{Backoff, is_retryable};
use protocol::show;
use std::io::Write as _;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use sys::stderr::Notes;

/// Longest time without a look at what the broker sends.
const LOOK: Duration = Duration::from_millis(250);
/// First and longest wait between two attempts to announce the program.
const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Longest wait until the broker has heard of the program's end.
const LAST_REPORT: Duration = Duration::from_secs(1);

/// Most lines that are none of which it is told.
const UNKNOWN_MAX: u64 = 10;

/// What the thread of the program says.
#[derive(Debug)]
pub enum Report {
    /// The program wrote a line.
    Line(Line),
    /// It has ended.
    Ended {
        /// Not in order.
        failed: bool,
        /// How.
        text: String,
    },
}

/// What is known of the program.
struct Known {
    state: InstanceState,
    text: String,
    checkpoint: u64,
    /// It said that it has nothing to do. Independent of `is_fresh`.
    is_idle: bool,
    /// It wrote a line since the last beat. Independent of `is_idle`.
    is_fresh: bool,
}

/// Tells the broker of the program.
pub struct Reporter {
    addresses: Vec<Address>,
    options: Options,
    instance: InstanceOptions,
    /// Whether only a line shows that the program goes on.
    activity: bool,
    known: Known,
    link: Option<(Bus, Instance)>,
    /// When to try to announce it; `None` = never again.
    next_try: Option<Instant>,
    backoff: Backoff,
    /// The last that was noted, so that nothing is repeated.
    noted: String,
    notes: Notes,
    /// Lines of the program that are none.
    unknown: u64,
}

impl Reporter {
    /// Makes the reporter of a program that runs.
    pub fn new(
        addresses: Vec<Address>,
        options: Options,
        instance: InstanceOptions,
        activity: bool,
    ) -> Self {
        let known = Known {
            state: InstanceState::Running,
            text: String::new(),
            checkpoint: 0,
            is_idle: false,
            is_fresh: true,
        };
        Self {
            addresses,
            options,
            instance,
            activity,
            known,
            link: None,
            next_try: Some(now()),
            backoff: Backoff::new(WAITS.0, WAITS.1),
            noted: String::new(),
            notes: Notes::new("isdclient"),
            unknown: 0,
        }
    }

    /// Reports until the program has ended.
    pub fn run(mut self, said: &Receiver<Report>) {
        loop {
            if self.link.is_none() && self.next_try.is_some_and(|at| at <= now()) {
                self.announce();
            }
            match said.recv_timeout(self.wait()) {
                Ok(Report::Line(line)) => self.take(line),
                Ok(Report::Ended { failed, text }) => return self.end(failed, &text),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.go_on();
        }
    }

    fn wait(&self) -> Duration {
        match (&self.link, self.next_try) {
            (Some((bus, _)), _) => bus.beat_due().map_or(LOOK, |due| due.min(LOOK)),
            (None, Some(at)) => at.saturating_duration_since(now()).min(LOOK),
            (None, None) => LOOK,
        }
    }

    /// Logs in and announces the program.
    fn announce(&mut self) {
        let announced = Bus::connect(&self.addresses, self.options.clone())
            .and_then(|bus| Ok((bus.announce(self.instance.clone())?, bus)));
        match announced {
            Ok((instance, bus)) => {
                instance.checkpoint(self.known.checkpoint);
                instance.idle(self.known.is_idle);
                if self.known.state != InstanceState::Running || !self.known.text.is_empty() {
                    // If the connection is lost at once, the next one says it.
                    let _ = instance.set_state(self.known.state, &self.known.text);
                }
                self.link = Some((bus, instance));
                self.backoff.reset();
                self.noted.clear();
            }
            Err(error) => self.refused(&error),
        }
    }

    /// Notes why the program is not watched, and when to try again.
    fn refused(&mut self, error: &Error) {
        self.link = None;
        let may_return = matches!(error.code, Code::Isect(code) if is_retryable(code));
        self.next_try = may_return.then(|| now() + self.backoff.next_wait(0));
        let until = if may_return { " for now" } else { "" };
        self.note(format!("the program runs on, and is not watched{until}: {error}"));
    }

    fn note(&mut self, text: String) {
        if text != self.noted {
            let line = format!("isdclient: {}\n", show::one_line(text.clone()));
            // Nobody can be told that this failed.
            let _ = self.notes.write_all(line.as_bytes());
            self.noted = text;
        }
    }

    fn take(&mut self, line: Line) {
        self.known.is_fresh = true;
        let known = &mut self.known;
        match line {
            Line::Checkpoint(checkpoint) => {
                known.checkpoint = checkpoint;
                known.is_idle = false;
            }
            Line::Idle => known.is_idle = true,
            Line::State(state, text) => {
                known.state = state;
                known.text = text;
                if let Some((_, instance)) = &self.link
                    && let Err(error) = instance.set_state(state, &known.text)
                {
                    self.refused(&error);
                }
            }
            Line::Unknown(text) => self.unknown_line(&text),
        }
        if let Some((_, instance)) = &self.link {
            instance.checkpoint(self.known.checkpoint);
            instance.idle(self.known.is_idle);
        }
    }

    /// The program wrote a line that is none; of very many only the first are told.
    fn unknown_line(&mut self, text: &str) {
        self.unknown += 1;
        let and_more = match self.unknown {
            ..UNKNOWN_MAX => "",
            UNKNOWN_MAX => "; further ones are not told",
            _ => return,
        };
        let shown = show::brief(text, 60);
        self.note(format!(
            "'{shown}' is no line about an instance; it is 'checkpoint N', 'state WORD [TEXT]' or \
             'idle'{and_more}"
        ));
    }

    /// Says that the program goes on, if that is due and true, and hears what the broker says.
    fn go_on(&mut self) {
        let Some((bus, instance)) = &self.link else { return };
        let is_due = bus.beat_due() == Some(Duration::ZERO);
        let heard = if is_due && (self.known.is_fresh || !self.activity) {
            self.known.is_fresh = false;
            bus.beat()
        } else {
            bus.poll()
        };
        let ended = match instance.standing() {
            Standing::Ended(error) => Some(error),
            Standing::Asked | Standing::Watched(_) => heard.err(),
        };
        if let Some(error) = ended {
            self.refused(&error);
        }
    }

    /// Tells the end of the program.
    fn end(self, failed: bool, text: &str) {
        if let Some((bus, instance)) = self.link {
            let ended = if failed { instance.fail(text) } else { instance.withdraw(text) };
            // Without a connection the broker knows of the end.
            if ended.is_ok() && bus.flush(LAST_REPORT).is_ok() {
                let _ = bus.close();
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the clock of this thread")]
fn now() -> Instant {
    Instant::now()
}
