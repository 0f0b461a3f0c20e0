//! The configuration alone, in an engine of its own: without connections, hosts or a clock. It
//! makes the snapshots, so that the engine at work never has to write all of its configuration out.

use super::action::Action;
use super::hub::{Engine, EngineOptions};
use super::input::{Input, Listening};
use crate::engine::origin::Origin;
use protocol::time::Tick;

/// An engine that has what is stored and nothing else.
#[derive(Debug)]
pub struct StoredConfig {
    engine: Engine,
    actions: Vec<Action>,
}

impl StoredConfig {
    /// Nothing is configured yet. `execd` is the address of the built-in execd, which is the host
    /// `localhost`; settings of the command line that are in `options` are printed by `script`.
    pub fn new(options: EngineOptions, execd: Option<String>) -> Self {
        let mut config = Self { engine: Engine::new(options), actions: Vec::new() };
        let listening = Listening { execd, ..Listening::default() };
        let _ = config.step(Input::Listening(Box::new(listening)));
        config
    }

    /// Runs a stored script, or the lines of an [`Action::Store`].
    ///
    /// # Errors
    /// Commands failed: one text each, with the number of its line.
    pub fn apply(&mut self, text: &str) -> Result<(), Vec<String>> {
        self.step(Input::Script { origin: Origin::State, text: text.to_owned() })
    }

    /// The configuration as a script of commands.
    pub fn script(&self) -> String {
        self.engine.save_script()
    }

    fn step(&mut self, input: Input) -> Result<(), Vec<String>> {
        self.engine.step(Tick(0), input, &mut self.actions);
        let mut failures = Vec::new();
        for action in self.actions.drain(..) {
            if let Action::ScriptDone { failures: of, .. } = action {
                failures = of;
            }
        }
        if failures.is_empty() { Ok(()) } else { Err(failures) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    #[test]
    fn lines_of_changes_make_what_their_script_makes() {
        let execd = || Some("unix:/x/execd".to_owned());
        let mut lines = String::from("set stall_ms 7000\n");
        for id in 1..=1600 {
            let _ = writeln!(lines, "config service #{} s{id}", id + 1);
            let _ = writeln!(lines, "config worker #{id} s{id} localhost /bin/isdecho");
            let _ = writeln!(lines, "start s{id}");
        }
        assert_eq!(lines.lines().count(), 4801);
        let mut whole = StoredConfig::new(EngineOptions::default(), execd());
        assert_eq!(whole.apply(&lines), Ok(()));
        let mut again = StoredConfig::new(EngineOptions::default(), execd());
        assert_eq!(again.apply(&whole.script()), Ok(()));
        assert_eq!(again.script(), whole.script());
        assert!(whole.script().ends_with("start 1600\n"));
    }

    #[test]
    fn a_line_that_fails_is_named_and_the_rest_is_taken() {
        let mut config = StoredConfig::new(EngineOptions::default(), None);
        let failures = config.apply("config service a\nnonsense\nconfig service b\n").unwrap_err();
        assert!(failures.len() == 1 && failures[0].starts_with("line 2: "), "{failures:?}");
        assert!(config.script().contains("#3 b"), "{}", config.script());
    }
}
