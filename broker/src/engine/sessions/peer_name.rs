//! How a peer is named.

use crate::engine::input::Peer;

/// A peer as errors and facts name it: address, user id, token or worker.
pub(crate) fn from(peer: &Peer) -> String {
    let mut text = peer.address.clone();
    if let Some(uid) = peer.uid {
        text += &format!(" uid {uid}");
    }
    if let Some(token) = &peer.token {
        text += &format!(" token {token}");
    }
    if let Some(start) = &peer.start {
        text += &format!(", {start}");
    }
    text
}
