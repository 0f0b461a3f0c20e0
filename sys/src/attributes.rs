//! Extended attributes of files (xattr(7)) that give rights beside the mode, which nix does not
//! have.

use nix::libc;
use std::ffi::CStr;
use std::ptr;

/// The bytes of a file's access list; empty if it has none, or if it can't be read as a whole.
pub fn access_list(path: &CStr) -> Vec<u8> {
    let name = c"system.posix_acl_access".as_ptr();
    let read = |into: &mut [u8]| {
        #[expect(unsafe_code, reason = "nix has no getxattr")]
        // SAFETY: both names are NUL-terminated, and the kernel writes at most as many bytes as are
        // named, into a buffer that has so many; for none it tells how many there are.
        let size = unsafe {
            libc::getxattr(
                path.as_ptr(),
                name,
                into.as_mut_ptr().cast::<libc::c_void>(),
                into.len(),
            )
        };
        usize::try_from(size).unwrap_or(0)
    };
    let mut bytes = vec![0; read(&mut [])];
    let size = if bytes.is_empty() { 0 } else { read(&mut bytes) };
    bytes.truncate(size);
    bytes
}

/// Whether a file has capabilities, which give a program more rights than its user has.
pub fn has_capabilities(path: &CStr) -> bool {
    #[expect(unsafe_code, reason = "nix has no getxattr")]
    // SAFETY: both names are NUL-terminated; a size of 0 asks for the length alone, so nothing is
    // written to the null pointer.
    let size = unsafe {
        libc::getxattr(path.as_ptr(), c"security.capability".as_ptr(), ptr::null_mut(), 0)
    };
    // The file has no such attribute, or the file system has no attributes.
    size >= 0
}
