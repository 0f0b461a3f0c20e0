//! What is made of each row of `table`: the parsed command, how it is read and written, what it may
//! change.

use super::spec::{Effect, Spec};
use super::table::Command;

/// A row of the manual's help; fields that a row does not set are those of a command without
/// arguments.
pub(super) const fn manual(command: Command, name: &'static str, effect: Effect) -> Spec {
    Spec {
        command,
        name,
        usage: name,
        syntax: name,
        short: "",
        long: "",
        params: &[],
        effect,
        example: name,
        answer: &[],
        deploy: false,
        manual: true,
    }
}

/// A row of a command that the manual does not have.
pub(super) const fn beyond(command: Command, name: &'static str, effect: Effect) -> Spec {
    Spec { manual: false, ..manual(command, name, effect) }
}

macro_rules! commands {
    ($(
        $command:ident $(($($value:ident: $type:ty = $param:expr),*))?
            $({$($field:ident: $field_type:ty = $field_param:expr),* $(,)?})?
            = $from:ident $name:literal $effect:ident $((Read if $shows:pat))?
            $((Danger if $risk:pat => $is:expr))?
            { $($key:ident: $text:expr,)* }
    )*) => {
        /// Every command, one for each row of the table, in the order of the table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "each is a row of the table, which says all about it")]
        pub enum Command {
            $($command,)*
        }

        /// A parsed command: one variant for each row of the table, with the arguments as fields.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the row of the table says what each means and takes")]
        pub enum OpRequest {
            $($command $(($($type),*))? $({$($field: $field_type),*})?,)*
        }

        /// TABLE of commands, in the order of [`Command`]: first the manual's, in the manual's
        /// order.
        pub const COMMANDS: &[Spec] = &[$(Spec {
            $($key: $text,)*
            params: &[$($($param.args),*)? $($($field_param.args),*)?],
            ..$from(Command::$command, $name, Effect::$effect)
        },)*];

        impl OpRequest {
            /// The command that this is a request for.
            pub const fn command(&self) -> Command {
                match self {
                    $(Self::$command { .. } => Command::$command,)*
                }
            }

            /// The most that this request may change. A command that only shows something without
            /// an argument has the effect `Read` then, and one that is a risk with some arguments
            /// has the effect `Danger` with those.
            pub fn effect(&self) -> Effect {
                match self {
                    $($(Self::$command($shows) => Effect::Read,)?)*
                    $($($risk if $is => Effect::Danger,)?)*
                    _ => self.command().row().effect,
                }
            }

            /// Reads the arguments of a command, in the order of its row.
            pub(super) fn read(args: &mut Args<'_>) -> Result<Self, OpError> {
                Ok(match args.row.command {
                    $(Command::$command => Self::$command
                        $(($(($param.read)(args)?),*))?
                        $({$($field: ($field_param.read)(args)?),*})?,)*
                })
            }
        }

        /// Writes the line that the parser reads back. `save` prints such lines, and events quote
        /// them.
        impl fmt::Display for OpRequest {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.command().row().name)?;
                match self {
                    $(Self::$command $(($($value),*))? $({$($field),*})? => {
                        $($(($param.write)($value, f)?;)*)?
                        $($(($field_param.write)($field, f)?;)*)?
                    })*
                }
                Ok(())
            }
        }
    };
}
pub(super) use commands;
