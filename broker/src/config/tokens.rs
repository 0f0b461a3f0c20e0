//! The token file of the broker: where it is by default, how it is read. Not what stands in it
//! (`auth::list`), not who changes it (the command `isectd token`).

use auth::list::{FILE_BYTES_MAX, TokenList};
use auth::private;
use std::path::Path;

/// Its name in the state directory.
pub const FILE: &str = "tokens";

/// Reads a token file.
///
/// # Errors
/// Names the file and what is wrong with it.
pub fn read(path: &Path) -> Result<TokenList, String> {
    let text = private::read(path, FILE_BYTES_MAX)?;
    TokenList::parse(&text).map_err(|why| format!("{}: {why}", path.display()))
}
