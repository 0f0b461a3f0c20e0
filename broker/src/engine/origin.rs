//! Who asked for a change, and who waits for an answer from outside the engine.

use protocol::{ClientId, Header, LinkId, TokenName};

/// Who asked for a change; facts name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The saved configuration, at the start. Its changes are not written again.
    State,
    /// A file of `--source`, by its path.
    File(String),
    /// An operator, also for the commands of a file given to `source`.
    Operator {
        /// Id of the operator's client.
        client: ClientId,
        /// Host and process id as the client says, address as the kernel says.
        from: String,
        /// User id of the client; `None` = the kernel does not tell it.
        uid: Option<u32>,
        /// The token that the client proved; `None` = it has the rights of its user.
        token: Option<TokenName>,
    },
    /// The broker itself: the settings of its command line. Its changes are not written, as it
    /// makes them at each start.
    Broker,
}

impl Origin {
    /// Who asked for a change, as facts name it.
    pub(crate) fn who(&self) -> String {
        match self {
            Self::State => "the saved configuration".into(),
            Self::File(path) => format!("file {path}"),
            Self::Operator { client, from, uid, token } => {
                let uid = uid.map_or_else(String::new, |uid| format!(", uid {uid}"));
                let token =
                    token.as_ref().map_or_else(String::new, |token| format!(", token {token}"));
                format!("client {client} ({from}{uid}{token})")
            }
            Self::Broker => "the broker".into(),
        }
    }
}

/// Who asked for the files to be read again: link and header of an operator's `reload`, which gets
/// the answer; `None` = the start or SIGHUP.
pub type Requester = Option<(LinkId, Header)>;
