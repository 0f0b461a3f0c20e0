//! Tokens: who somebody is, proved without sending the token, and the files they stand in. Used by
//! whoever logs in (library, broker towards an execd) and by whoever lets in (broker, execd). Not
//! what somebody may do then: the engines decide that by its [`protocol::rights`].
//!
//! | module | what it is |
//! | --- | --- |
//! | [`scram`] | the arithmetic: hash, proof, signature |
//! | [`token`] | a token as its holder has it |
//! | [`prover`] | the side that logs in: claim, proof, check of the signature |
//! | [`list`] | the side that lets in: the token file, challenges, checks |
//! | [`private`] | files that nobody else may read |
//! | [`lock`] | one program at a time changes such a file |

pub mod list;
pub mod lock;
pub mod private;
pub mod prover;
pub mod scram;
pub mod token;

/// Random bytes of the system.
///
/// # Errors
/// The system has none to give.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| format!("the system gives no random bytes: {e}"))?;
    Ok(bytes)
}
