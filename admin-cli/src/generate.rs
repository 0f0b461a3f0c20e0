//! Generates completion scripts, the man page and markdown from the definition of the command line
//! and the table of commands.

use crate::cli::Cli;
use crate::output::Output;
use crate::status::Failure;
use clap::{CommandFactory as _, ValueEnum};
use clap_complete::Shell;
use protocol::op::help;

/// The texts that `--generate` can print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// A completion script for bash.
    Bash,
    /// A completion script for zsh.
    Zsh,
    /// A completion script for fish.
    Fish,
    /// The man page.
    Man,
    /// The page of the operator's commands.
    Markdown,
}

/// Prints what is asked for.
///
/// # Errors
/// Standard output can't be written.
pub fn generate(what: What, out: &mut Output) -> Result<(), Failure> {
    out.piece(&made(what)?)
}

fn made(what: What) -> Result<Vec<u8>, Failure> {
    Ok(match what {
        What::Bash => script(Shell::Bash),
        What::Zsh => script(Shell::Zsh),
        What::Fish => script(Shell::Fish),
        What::Man => man().map_err(Failure::Output)?,
        What::Markdown => help::markdown().into_bytes(),
    })
}

fn script(shell: Shell) -> Vec<u8> {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "isdclient", &mut out);
    out
}

fn man() -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut out)?;
    out.extend_from_slice(b".SH COMMANDS\n");
    unfilled(&help::short(), &mut out);
    let mut program = Cli::command();
    // So that each verb has the options of the program that stand behind it, too.
    program.build();
    for verb in program.get_subcommands_mut() {
        let heading = format!(".SH VERB {}\n", verb.get_name().to_uppercase());
        out.extend_from_slice(heading.as_bytes());
        unfilled(&verb.render_long_help().to_string(), &mut out);
    }
    Ok(out)
}

/// Adds lines that the formatter is to leave as they are.
fn unfilled(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b".nf\n");
    for line in text.lines() {
        // To the formatter, a line that begins with a dot or an apostrophe is a request.
        let line = line.replace('\\', "\\\\");
        let guard = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
        out.extend_from_slice(format!("{guard}{line}\n").as_bytes());
    }
    out.extend_from_slice(b".fi\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_can_be_made_and_names_the_program() {
        for what in What::value_variants() {
            let text = String::from_utf8(made(*what).unwrap()).unwrap();
            assert!(text.contains("isdclient") && text.len() > 500, "{what:?}");
        }
        let page = String::from_utf8(made(What::Man).unwrap()).unwrap();
        assert!(page.contains(".SH COMMANDS") && page.contains("[un]block clientid"));
        assert!(page.contains(".SH VERB ANNOUNCE") && page.contains("ISECT_INSTANCE_FD"));
        let bash = String::from_utf8(made(What::Bash).unwrap()).unwrap();
        assert!(bash.contains("while-connected") && bash.contains("isdclient__subcmd__pub"));
    }
}
