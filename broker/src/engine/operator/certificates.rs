//! Records that the certificates were read, and answers the operator who asked for it. The
//! certificates themselves stay in the reactor.

use super::answer;
use crate::engine::fact::{About, FactKind};
use crate::engine::hub::Engine;
use crate::engine::input::Certificates;
use crate::engine::keys::ClientKey;
use crate::engine::operator::result::{OpResult, refused};
use crate::engine::origin::Requester;
use crate::engine::sessions::connection::End;
use crate::engine::store::Difference;
use protocol::{Block, Command, OpReply, Value};

pub(crate) fn on_certificates(
    hub: &mut Engine,
    requester: Requester,
    found: Certificates,
    more: bool,
) {
    let (client, about) = asked_by(hub, requester);
    for (kind, lines) in [
        (FactKind::CertificateRead, &found.read),
        (FactKind::CertificateFailed, &found.failed),
        (FactKind::CertificateExpiring, &found.warnings),
    ] {
        for line in lines {
            hub.record(kind, about.clone(), line.clone());
        }
    }
    if more {
        hub.certificates = Some((requester, found));
    } else if let (Some((_, head)), Some(client)) = (requester, client) {
        hub.store.did(Difference::Changed);
        answer::answer(hub, client, &head, found.join(None));
    }
}

/// The client that asked for the files to be read again, if it is still attached, and the ids
/// for facts about it.
pub(crate) fn asked_by(hub: &Engine, requester: Requester) -> (Option<ClientKey>, About) {
    let client = requester.and_then(|(link, _)| match hub.sessions.connection(link)?.end {
        End::Client(client) => Some(client),
        End::Worker(_) | End::Free | End::NewClient | End::NewWorker | End::Host(_) => None,
    });
    let who = client.map(|client| answer::origin_of(hub, client).who());
    (client, About { who, ..About::default() })
}

impl Certificates {
    /// The answer to `reload`, with the answer about the tokens, if they were read.
    pub(crate) fn join(self, tokens: Option<OpResult>) -> OpResult {
        let (tokens, trouble) = match tokens {
            None => (None, None),
            Some(Ok(reply)) => (Some(reply), None),
            Some(Err(error)) => (None, Some(error.text)),
        };
        if trouble.is_some() || !self.failed.is_empty() {
            let stay =
                self.failed.into_iter().map(|why| format!("{why}; the old one stays in use"));
            return Err(refused(trouble.into_iter().chain(stay).collect::<Vec<_>>().join("\n")));
        }
        let lines =
            self.read.into_iter().chain(self.warnings.iter().map(|w| format!("warning: {w}")));
        let mut blocks: Vec<Block> = lines
            .map(|text| {
                let fields = vec![("text", Value::Text(text.clone()))];
                Block::Line { name: "certificates", text, fields }
            })
            .collect();
        blocks.extend(tokens.into_iter().flat_map(|reply| reply.blocks));
        Ok(OpReply { blocks }.complete(Command::Reload))
    }
}
