//! The bodies of simulated requests: an identity that names the request and the piece, filler that
//! shows mixed-up bytes, and the correct reply.

use super::model::Broken;

/// What stands at the front of each frame of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceId {
    /// Number of the request in the model.
    pub uid: u64,
    /// Number of the piece in its turn, from 0.
    pub part: u16,
    /// Number of pieces of the first turn.
    pub parts: u16,
    /// Number of the turn in the conversation, from 0.
    pub turn: u8,
    /// Number of turns of the conversation.
    pub turns: u8,
}

const PIECE_ID_BYTES: usize = 18;
const MAGIC: &[u8; 4] = b"SIM1";

impl PieceId {
    /// A frame's body: the identity, and filler made from it.
    pub fn body(self, filler: u64) -> Vec<u8> {
        let mut body = MAGIC.to_vec();
        body.extend(self.uid.to_be_bytes());
        body.extend(self.part.to_be_bytes());
        body.extend(self.parts.to_be_bytes());
        body.extend([self.turn, self.turns]);
        body.extend((0..filler).map(|at| fill(self.uid, at)));
        body
    }

    /// Reads a body.
    ///
    /// # Errors
    /// The filler is not what was sent. `Ok(None)` = it is no frame of ours.
    pub fn read(body: &[u8]) -> Result<Option<Self>, Broken> {
        let Some((head, filler)) = body.split_first_chunk::<PIECE_ID_BYTES>() else {
            return Ok(None);
        };
        if head[..4] != *MAGIC {
            return Ok(None);
        }
        let mut uid = [0; 8];
        uid.copy_from_slice(&head[4..12]);
        let uid = u64::from_be_bytes(uid);
        let piece = Self {
            uid,
            part: u16::from_be_bytes([head[12], head[13]]),
            parts: u16::from_be_bytes([head[14], head[15]]),
            turn: head[16],
            turns: head[17],
        };
        if filler.iter().zip(0..).any(|(byte, at)| *byte != fill(uid, at)) {
            return Err(format!("the bytes of {piece:?} are not those that were sent"));
        }
        Ok(Some(piece))
    }
}

const fn fill(uid: u64, at: u64) -> u8 {
    (uid.wrapping_mul(31).wrapping_add(at.wrapping_mul(7)) >> 2) as u8
}

/// The bytes of one turn's answer.
pub fn turn_reply(uid: u64, turn: u8) -> Vec<u8> {
    let mut reply = format!("answer to {uid} turn {turn};").into_bytes();
    reply.extend((0..uid.wrapping_mul(977) % 1200).map(|at| fill(uid, at)));
    reply
}

/// The bytes of all turns' answers together.
pub fn reply_to(uid: u64, turns: u8) -> Vec<u8> {
    (0..turns).flat_map(|turn| turn_reply(uid, turn)).collect()
}
