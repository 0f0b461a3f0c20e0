//! Extended attributes of files (xattr(7)) that give rights beside the mode.

use rustix::fs::{getxattr, getxattr_query};
use std::ffi::CStr;

/// The bytes of a file's access list; empty if it has none, or if it can't be read as a whole.
pub fn access_list(path: &CStr) -> Vec<u8> {
    let name = c"system.posix_acl_access";
    let mut bytes = vec![0; getxattr_query(path, name).unwrap_or(0)];
    let size = getxattr(path, name, &mut bytes[..]).unwrap_or(0);
    bytes.truncate(size);
    bytes
}

/// Whether a file has capabilities, which give a program more rights than its user has.
pub fn has_capabilities(path: &CStr) -> bool {
    // The file has no such attribute, or the file system has no attributes.
    getxattr_query(path, c"security.capability").is_ok()
}
