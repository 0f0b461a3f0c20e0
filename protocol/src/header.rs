//! The fixed header of every frame: 64 bytes, big-endian. This is the only file that knows an
//! offset. It reads any 64 bytes; `decode` decides whether they are valid.

use crate::limits::{HEADER_BYTES, VERSION};

/// The fields of the header by value. `Header::read` and `Header::write` are each other's inverse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of body that follow the header.
    pub len: u32,
    /// The sender's own number for a request, returned unchanged in every reply and error to it.
    pub sequence: u32,
    /// Client: non-zero = will wait for a reply; zero = nothing is sent back, success or not.
    pub reply: u16,
    /// 0, a negative code of the error table, or a positive code of the worker's own.
    pub error: i16,
    /// The kind of frame: a number of the kinds table; 0 is data.
    pub command: u16,
    /// The protocol version of the sender, 2.
    pub version: u16,
    /// In a reply with `more`: the worker that waits; in a client's next frame: where it goes.
    pub workerid: u32,
    /// Non-zero = further frames of the same request or reply follow.
    pub more: u16,
    /// Priority of this request, 1 to 255, lower is served first; 0 = the login's.
    pub priority: u8,
    /// Bit 0 ([`FLAG_IDEMPOTENT`]): the request may run again on another worker. Bit 1
    /// ([`FLAG_EXTENDABLE`]): its worker may put its deadline off. All other bits are zero.
    pub flags: u8,
    /// The broker's number for the transaction; 0 in a request, because the broker assigns it.
    pub transaction: u64,
    /// From a client: milliseconds that the answer is worth waiting for, 0 = the service's default.
    /// To a worker: milliseconds that are left.
    pub deadline_ms: u32,
    /// To the worker: counts the deliveries of this request, 1 for the first.
    pub attempt: u32,
    /// W3C trace id; zero = none. The broker carries it through.
    pub trace_id: [u8; 16],
    /// W3C parent id; zero = none.
    pub span_id: u64,
}

/// Flag bit 0: the request may be run again on another worker.
pub const FLAG_IDEMPOTENT: u8 = 1;
/// Flag bit 1: the worker may put the deadline off, with `deadline_ms` in a reply with `more`.
pub const FLAG_EXTENDABLE: u8 = 2;
/// All flags that there are.
pub const FLAGS: u8 = FLAG_IDEMPOTENT | FLAG_EXTENDABLE;

/// Describes one field of the header, for documents and tools.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Bytes from the start of the header.
    pub offset: usize,
    /// Size of the field in bytes.
    pub width: usize,
    /// The type as the documents write it (`u32`, `[u8; 16]`).
    pub kind: &'static str,
    /// The name of the field in [`Header`].
    pub name: &'static str,
    /// The meaning, in a sentence or two.
    pub text: &'static str,
}

const fn field(
    offset: usize,
    width: usize,
    kind: &'static str,
    name: &'static str,
    text: &'static str,
) -> Field {
    Field { offset, width, kind, name, text }
}

/// TABLE of the header's fields, in order, without gaps.
pub const FIELDS: &[Field] = &[
    field(
        0,
        4,
        "u32",
        "len",
        "bytes of body that follow the header; at most `body_bytes_max` for data, 256 KiB for control frames",
    ),
    field(
        4,
        4,
        "u32",
        "sequence",
        "the sender's own number for a request; every reply and error to it carries the same number, so one connection can have many requests under way. Errors about the connection itself carry 0. In a `publish` its number, in a `message` that of the subscription",
    ),
    field(
        8,
        2,
        "u16",
        "reply",
        "client: 1 = waits for a reply; 0 = nothing is sent back, success or not; other values are refused. Of a request in pieces the first frame's holds. Broker to worker: the client's value. In a `publish` 1 = `published` is to answer. Elsewhere 0",
    ),
    field(
        10,
        2,
        "i16",
        "error",
        "0 = none; negative = a code of the error table, made by isect; positive = the worker's own code, passed through to the client",
    ),
    field(12, 2, "u16", "command", "the kind of frame, a number of the kinds table; 0 = data"),
    field(14, 2, "u16", "version", "2"),
    field(
        16,
        4,
        "u32",
        "workerid",
        "in a reply with `more`: the worker that holds the conversation; the client sends it back in the next frame of the conversation. To the worker: its own id",
    ),
    field(
        20,
        2,
        "u16",
        "more",
        "1 = further frames of the same request or reply follow, 0 = this is the last; other values are refused. The worker stays busy until it sends 0. In a `message` 1 = it is one from before",
    ),
    field(
        22,
        1,
        "u8",
        "priority",
        "priority of this request, 1 to 255, lower is served first; 0 = the priority given at login",
    ),
    field(
        23,
        1,
        "u8",
        "flags",
        "bit 0 = idempotent, the request may be run again on another worker if its worker dies; bit 1 = extendable, its worker may put the deadline off; the other bits are 0 until they get a meaning, and a broker that does not know a bit refuses the frame: whoever sets it relies on what it means",
    ),
    field(
        24,
        8,
        "u64",
        "transaction",
        "the broker's number for the transaction, unique for its lifetime; 0 in a client's request; the worker returns it in every reply. In a `message` its number in the broker's count",
    ),
    field(
        32,
        4,
        "u32",
        "deadline_ms",
        "client: how long the answer is worth waiting for, 0 = the service's default; more than 3600000 is refused. To the worker: milliseconds left, at least 1; 0 = the conversation has no deadline any more. In a worker's reply with `more` to an extendable request: the time until its next frame, which replaces the deadline, up to an hour after the request came; 0 = as before. In other replies it is not looked at, but must be in range; a reply with it tells the client the new time; of a broker take any value",
    ),
    field(
        36,
        4,
        "u32",
        "attempt",
        "to the worker: 1 for the first delivery of this request, 2 for the first repetition. In a `message`: how many of its subscription were dropped right before it. Elsewhere 0",
    ),
    field(
        40,
        16,
        "bytes",
        "trace_id",
        "W3C trace id, zero = none; carried through to the worker and back",
    ),
    field(56, 8, "u64", "span_id", "W3C parent id of the sender's span; carried through"),
];

// The fields cover the header without gaps or overlaps.
const _: () = {
    let mut index = 0;
    let mut at = 0;
    while index < FIELDS.len() {
        assert!(FIELDS[index].offset == at);
        at += FIELDS[index].width;
        index += 1;
    }
    assert!(at == HEADER_BYTES);
};

impl Default for Header {
    fn default() -> Self {
        Self {
            len: 0,
            sequence: 0,
            reply: 0,
            error: 0,
            command: 0,
            version: VERSION,
            workerid: 0,
            more: 0,
            priority: 0,
            flags: 0,
            transaction: 0,
            deadline_ms: 0,
            attempt: 0,
            trace_id: [0; 16],
            span_id: 0,
        }
    }
}

const fn two(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; 2] {
    [bytes[at], bytes[at + 1]]
}

const fn four(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; 4] {
    [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]
}

fn eight(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; 8] {
    let mut out = [0; 8];
    out.copy_from_slice(&bytes[at..at + 8]);
    out
}

impl Header {
    /// Reads the fields; any 64 bytes are accepted.
    pub fn read(bytes: &[u8; HEADER_BYTES]) -> Self {
        let mut trace_id = [0; 16];
        trace_id.copy_from_slice(&bytes[40..56]);
        Self {
            len: u32::from_be_bytes(four(bytes, 0)),
            sequence: u32::from_be_bytes(four(bytes, 4)),
            reply: u16::from_be_bytes(two(bytes, 8)),
            error: i16::from_be_bytes(two(bytes, 10)),
            command: u16::from_be_bytes(two(bytes, 12)),
            version: u16::from_be_bytes(two(bytes, 14)),
            workerid: u32::from_be_bytes(four(bytes, 16)),
            more: u16::from_be_bytes(two(bytes, 20)),
            priority: bytes[22],
            flags: bytes[23],
            transaction: u64::from_be_bytes(eight(bytes, 24)),
            deadline_ms: u32::from_be_bytes(four(bytes, 32)),
            attempt: u32::from_be_bytes(four(bytes, 36)),
            trace_id,
            span_id: u64::from_be_bytes(eight(bytes, 56)),
        }
    }

    /// Writes the fields.
    pub fn write(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&self.len.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[8..10].copy_from_slice(&self.reply.to_be_bytes());
        bytes[10..12].copy_from_slice(&self.error.to_be_bytes());
        bytes[12..14].copy_from_slice(&self.command.to_be_bytes());
        bytes[14..16].copy_from_slice(&self.version.to_be_bytes());
        bytes[16..20].copy_from_slice(&self.workerid.to_be_bytes());
        bytes[20..22].copy_from_slice(&self.more.to_be_bytes());
        bytes[22] = self.priority;
        bytes[23] = self.flags;
        bytes[24..32].copy_from_slice(&self.transaction.to_be_bytes());
        bytes[32..36].copy_from_slice(&self.deadline_ms.to_be_bytes());
        bytes[36..40].copy_from_slice(&self.attempt.to_be_bytes());
        bytes[40..56].copy_from_slice(&self.trace_id);
        bytes[56..64].copy_from_slice(&self.span_id.to_be_bytes());
        bytes
    }

    /// Whether the sender allows a repetition on another worker.
    pub const fn is_idempotent(&self) -> bool {
        self.flags & FLAG_IDEMPOTENT != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_and_write_are_inverse_for_any_bytes() {
        let mut bytes = [0u8; HEADER_BYTES];
        for seed in 0..=255u8 {
            for (index, byte) in bytes.iter_mut().enumerate() {
                *byte = seed.wrapping_mul(31).wrapping_add((index as u8).wrapping_mul(17));
            }
            assert_eq!(Header::read(&bytes).write(), bytes);
        }
    }

    #[test]
    fn the_original_fields_stand_where_they_stood() {
        let header = Header {
            len: 1,
            sequence: 2,
            reply: 3,
            error: -1,
            command: 5,
            workerid: 6,
            more: 7,
            ..Header::default()
        };
        let bytes = header.write();
        assert_eq!(
            &bytes[..22],
            &[0, 0, 0, 1, 0, 0, 0, 2, 0, 3, 255, 255, 0, 5, 0, 2, 0, 0, 0, 6, 0, 7]
        );
    }
}
