//! The corpora: one text file per target, one input per line, in hex; a line that begins with `#`
//! names the origin of the next input. Text makes a changed input one line of a diff.

use std::fs;
use std::path::{Path, PathBuf};

/// The file of a target's corpus.
pub fn file(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fuzz/corpora/{target}.hex"))
}

/// The inputs of a target's corpus.
///
/// # Errors
/// The file can't be read, or a line is no hex.
pub fn read(target: &str) -> Result<Vec<Vec<u8>>, String> {
    let path = file(target);
    let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let lines = text.lines().enumerate();
    lines
        .filter(|(_, line)| !line.starts_with('#'))
        .map(|(index, line)| {
            hex::decode(line).map_err(|e| format!("{}:{}: {e}", path.display(), index + 1))
        })
        .collect()
}

/// The lines that are kept whatever a minimiser says: those after a comment, with it.
///
/// # Errors
/// The file is there and can't be read.
pub fn marked(target: &str) -> Result<String, String> {
    let path = file(target);
    if !path.exists() {
        return Ok(String::new());
    }
    let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut out = String::new();
    let mut is_marked = false;
    for line in text.lines() {
        let is_comment = line.starts_with('#');
        if is_comment || is_marked {
            out.push_str(line);
            out.push('\n');
        }
        is_marked = is_comment;
    }
    Ok(out)
}
