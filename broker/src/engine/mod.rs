//! The broker's mind, pure: inputs in, actions out. No IO, no clock, no chance, no thread, no log, no
//! serialisation. What it never does: read the time, touch a socket, format bytes for the wire.

pub mod action;
pub mod fact;
pub mod input;

use action::Action;
use input::Input;
use protocol::settings::Settings;
use protocol::time::Tick;

/// What the engine is told before the first step.
#[derive(Clone, Debug, Default)]
pub struct EngineOptions {
    /// The settings in force at the start.
    pub settings: Settings,
    /// Runs are numbered from here on; the shell takes a number that grows with the wall clock, so
    /// that a run after a restart of the broker is never taken for one before it.
    pub run_base: u64,
}

/// The broker without its sockets.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
}

impl Engine {
    /// An engine that knows nothing but its settings.
    pub fn new(options: EngineOptions) -> Self {
        Self { settings: options.settings }
    }

    /// Takes one input and appends what is to be done, in order.
    pub fn step(&mut self, _now: Tick, _input: Input, _actions: &mut Vec<Action>) {}

    /// When `Input::Deadline` is due next; may be earlier than needed, never later.
    pub fn next_deadline(&self) -> Option<Tick> {
        None
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The configuration as a script of commands; what `save` prints.
    pub fn save_script(&self) -> String {
        String::new()
    }

    /// The law that is broken, if any: the full sweep, for tests and simulation.
    ///
    /// # Errors
    /// Names the law and the ids.
    pub fn check_all(&self) -> Result<(), String> {
        Ok(())
    }
}
