//! What a command comes to: an answer, or why there is none.

use crate::engine::fact::{FACTS, FactKind};
use protocol::op::parse;
use protocol::{ErrorCode, OpError, OpReply};

/// The answer to a command, or the error that is sent in its place.
pub(crate) type OpResult = Result<OpReply, OpError>;

/// The error for a command that can't be carried out now.
pub(crate) fn refused(text: impl Into<String>) -> OpError {
    OpError { code: ErrorCode::Refused, text: text.into() }
}

/// The error for a command that names something that does not exist.
pub(crate) fn not_found(text: impl Into<String>) -> OpError {
    OpError { code: ErrorCode::NotFound, text: text.into() }
}

/// The kinds of facts with these names.
///
/// # Errors
/// A name is not in the table; the error suggests a similar one.
pub(crate) fn fact_kinds(names: &[String]) -> Result<Vec<FactKind>, OpError> {
    let kind = |name: &String| {
        FACTS.iter().find(|row| row.name == name).map(|row| row.kind).ok_or_else(|| {
            let near = parse::nearest(name, FACTS.iter().map(|row| row.name));
            let hint = near.map_or_else(String::new, |near| format!("; did you mean '{near}'?"));
            not_found(format!("'{name}' is no kind of fact{hint}; docs/facts.md lists them"))
        })
    };
    names.iter().map(kind).collect()
}
