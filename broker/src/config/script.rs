//! Reads a file of operator commands, with a limit on its size.

use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

/// Largest script that is read.
pub const SCRIPT_BYTES_MAX: u64 = 1 << 20;

/// Reads a script: a regular file of UTF-8 text, bounded.
///
/// # Errors
/// Names the file and what is wrong with it.
pub fn read(path: &str) -> Result<String, String> {
    let wrong = |why: String| format!("{path}: {why}");
    let meta = fs::metadata(path).map_err(|e| wrong(e.to_string()))?;
    if !meta.is_file() {
        return Err(wrong("not a regular file; name a file of commands".to_owned()));
    }
    // If the file was replaced by a pipe meanwhile, opening must not block the thread.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(|e| wrong(e.to_string()))?;
    let mut bytes = Vec::new();
    file.take(SCRIPT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|e| wrong(e.to_string()))?;
    if bytes.len() as u64 > SCRIPT_BYTES_MAX {
        return Err(wrong(format!(
            "larger than the {SCRIPT_BYTES_MAX} bytes of a script; split it"
        )));
    }
    String::from_utf8(bytes).map_err(|e| {
        wrong(format!("byte {} is not UTF-8; a script is text", e.utf8_error().valid_up_to()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_read_at_the_limit_and_refused_past_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("script");
        let name = path.to_str().unwrap();
        fs::write(&path, vec![b'#'; SCRIPT_BYTES_MAX as usize]).unwrap();
        assert_eq!(read(name).unwrap().len() as u64, SCRIPT_BYTES_MAX);
        fs::write(&path, vec![b'#'; SCRIPT_BYTES_MAX as usize + 1]).unwrap();
        assert!(read(name).unwrap_err().contains("1048576 bytes"));
        fs::write(&path, b"ok \xff").unwrap();
        assert!(read(name).unwrap_err().contains("byte 3 is not UTF-8"));
        assert!(read(dir.path().to_str().unwrap()).unwrap_err().contains("regular file"));
        assert!(read("/no/such").unwrap_err().starts_with("/no/such: "));
    }
}
