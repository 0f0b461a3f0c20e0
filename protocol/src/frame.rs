//! A frame by value. Each kind has its own variant, so that a frame that makes no sense can't be
//! built; the variants are made from the table of `kinds`. `encode` and `decode` turn frames into
//! bytes and back.

use crate::bodies::{self, ErrorBody};
use crate::header::Header;
use crate::kinds::Kind;
use crate::lines::BodyError;
use bytes::Bytes;

macro_rules! frames {
    ($(
        $kind:ident = $number:literal, $name:literal, [$($role:ident),*],
        $form:ident $({ $($fields:tt)* })?, $text:literal
        $(, $(#[$derive:meta])* $body:ident { $($keys:tt)* })?;
    )*) => {
        /// One message on the wire. `encode` sets the header's `len`, `command` and `version`.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Frame {
            $(#[doc = $text] $kind $({ $($fields)* })? $((bodies::$body))?,)*
        }

        impl Frame {
            /// The kind of this frame, which decides its number on the wire.
            pub const fn kind(&self) -> Kind {
                match self {
                    $(Self::$kind { .. } => Kind::$kind,)*
                }
            }

            /// Makes a frame of a header and its body.
            pub(crate) fn read(kind: Kind, head: Header, body: &[u8]) -> Result<Self, BodyError> {
                let sequence = head.sequence;
                Ok(match kind {
                    Kind::Data => Self::Data { head, body: Bytes::copy_from_slice(body) },
                    Kind::Publish => Self::Publish { head, body: Bytes::copy_from_slice(body) },
                    Kind::Message => Self::Message { head, body: Bytes::copy_from_slice(body) },
                    Kind::Error => {
                        Self::Error { head, error: ErrorBody::parse(head.error, body)? }
                    }
                    Kind::Ping => Self::Ping { sequence },
                    Kind::Pong => Self::Pong { sequence },
                    Kind::Status => Self::Status { sequence },
                    Kind::StatusReply => Self::StatusReply { sequence, text: text(body)? },
                    Kind::Cancel => Self::Cancel { head, text: text(body)? },
                    Kind::Flush => Self::Flush { sequence },
                    Kind::End => Self::End,
                    Kind::Reinit => Self::Reinit,
                    Kind::ExecList => Self::ExecList,
                    $($(Kind::$kind => Self::$kind(bodies::$body::parse(body)?),)?)*
                })
            }

            /// The header and the body of this frame; `encode` adds what all frames have.
            pub(crate) fn write(self) -> (Header, Bytes) {
                let head = |sequence| Header { sequence, ..Header::default() };
                match self {
                    Self::Data { head, body }
                    | Self::Publish { head, body }
                    | Self::Message { head, body } => (head, body),
                    Self::Error { head, error } => {
                        (Header { error: error.code.number(), ..head }, error.render())
                    }
                    Self::Ping { sequence }
                    | Self::Pong { sequence }
                    | Self::Status { sequence }
                    | Self::Flush { sequence } => (head(sequence), Bytes::new()),
                    Self::Cancel { head, text } => (head, Bytes::from(text)),
                    Self::StatusReply { sequence, text } => (head(sequence), Bytes::from(text)),
                    Self::End | Self::Reinit | Self::ExecList => {
                        (head(0), Bytes::new())
                    }
                    $($(Self::$kind(body) => (head(0), bodies::$body::render(&body)),)?)*
                }
            }

            /// The example of a kind whose body has its keys in the table.
            pub fn example(kind: Kind) -> Option<Self> {
                match kind {
                    $($(Kind::$kind => bodies::$body::example().map(Self::$kind).ok(),)?)*
                    _ => None,
                }
            }
        }
    };
}

crate::kinds::table!(frames);

fn text(body: &[u8]) -> Result<String, BodyError> {
    let text = std::str::from_utf8(body);
    let wrong = |at| BodyError(format!("byte {at} is not UTF-8"));
    text.map(str::to_owned).map_err(|e| wrong(e.valid_up_to()))
}

impl Frame {
    /// A data frame with this header and body.
    pub const fn data(head: Header, body: Bytes) -> Self {
        Self::Data { head, body }
    }

    /// An error about the connection as a whole.
    pub fn refusal(error: ErrorBody) -> Self {
        Self::Error { head: Header::default(), error }
    }
}
