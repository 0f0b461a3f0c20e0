//! Tokens: how a peer proves who it is without sending its token, and the files that tokens are
//! kept in. The side that logs in (the library, a broker towards an execd) and the side that checks
//! (broker, execd) both use this crate. The engines decide by [`protocol::rights`] what a peer may
//! do then.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`scram`] | the arithmetic: hash, proof, signature |
//! | [`token`] | a token as its holder has it |
//! | [`prover`] | the side that logs in: claim, proof, check of the signature |
//! | [`list`] | the side that lets in: the token file, challenges, checks |
//! | [`private`] | files that nobody else may read or change |
//! | [`own`] | files, directories and sockets that only this user can have put there |
//! | [`acl`] | who else can write to a file, by its access list |
//! | [`lock`] | lets one program at a time change such a file |

pub mod acl;
pub mod list;
pub mod lock;
pub mod own;
pub mod private;
pub mod prover;
pub mod scram;
pub mod token;

/// Random bytes from the kernel.
///
/// # Errors
/// The kernel gives no random bytes.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| format!("the system gives no random bytes: {e}"))?;
    Ok(bytes)
}
