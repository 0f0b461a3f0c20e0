//! Reads certificates and keys from PEM files. Every error names the file and the cure.

use nix::unistd::geteuid;
use rustls::RootCertStore;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fs::{File, Metadata, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Most bytes of a file that is read; the CA bundle of a usual system has a quarter of that.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// `O_NONBLOCK`: opening a pipe in place of a file must not block the program.
const NONBLOCK: i32 = 0o4000;

/// A certificate with its chain, and its key.
#[derive(Debug)]
pub struct Identity {
    /// The certificate, then the intermediate ones up to its CA.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key of the first certificate.
    pub key: PrivateKeyDer<'static>,
}

/// Mode bits that let others write the file.
const WRITABLE: u32 = 0o022;

/// Refuses a list of CAs that others can write: it decides who is trusted.
fn check_writers(meta: &Metadata, path: &Path, named: &str) -> Result<(), String> {
    let mode = meta.mode() & 0o7777;
    if mode & WRITABLE == 0 {
        return Ok(());
    }
    Err(format!(
        "{named} can be changed by others (mode {mode:04o}); say: chmod go-w {}",
        path.display()
    ))
}

/// Refuses a key that belongs to neither this user nor root: its owner would choose the identity of
/// this program.
fn check_owner(meta: &Metadata, path: &Path, named: &str) -> Result<(), String> {
    let owner = meta.uid();
    let own = geteuid();
    if owner != 0 && owner != own.as_raw() {
        return Err(format!(
            "{named} belongs to user {owner}, who could put another one there; say: chown {own} {}",
            path.display()
        ));
    }
    Ok(())
}

fn open(path: &Path, what: &str) -> Result<(File, String), String> {
    let named = format!("{what} {}", path.display());
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(NONBLOCK)
        .open(path)
        .map_err(|e| format!("{named}: {e}"))?;
    let meta = file.metadata().map_err(|e| format!("{named}: {e}"))?;
    if !meta.is_file() {
        return Err(format!("{named} is no regular file; name a PEM file"));
    }
    Ok((file, named))
}

fn read(file: File, named: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|e| format!("{named}: {e}"))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("{named} is larger than {FILE_BYTES_MAX} bytes; name a PEM file"));
    }
    Ok(bytes)
}

/// Reads the certificates of a file, at least one.
///
/// # Errors
/// Names the file and what is wrong with it.
pub fn certificates(path: &Path, what: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let (file, named) = open(path, what)?;
    parse(file, &named)
}

fn parse(file: File, named: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = read(file, named)?;
    let found: Result<Vec<_>, PemError> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|e| format!("{named} is no whole PEM file: {e}"))?;
    if found.is_empty() {
        return Err(format!(
            "{named} has no certificate in it; it is to be PEM text with '-----BEGIN \
             CERTIFICATE-----'"
        ));
    }
    Ok(found)
}

/// Reads the CA certificates of a file.
///
/// # Errors
/// Names the file and what is wrong with it.
pub fn roots(path: &Path, what: &str) -> Result<RootCertStore, String> {
    let (file, named) = open(path, what)?;
    let meta = file.metadata().map_err(|e| format!("{named}: {e}"))?;
    check_writers(&meta, path, &named)?;
    let mut roots = RootCertStore::empty();
    let (taken, left) = roots.add_parsable_certificates(parse(file, &named)?);
    if taken == 0 {
        return Err(format!(
            "{what} {}: none of its {left} certificates can be a CA's here; make them anew",
            path.display()
        ));
    }
    Ok(roots)
}

/// Reads a certificate with its chain, and its key.
///
/// # Errors
/// Names the file and what is wrong with it: it is missing, it is empty, or others may read the
/// key.
pub fn identity(cert: &Path, key: &Path) -> Result<Identity, String> {
    Ok(Identity { chain: certificates(cert, "certificate")?, key: private_key(key)? })
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let (file, named) = open(path, "key")?;
    let meta = file.metadata().map_err(|e| format!("{named}: {e}"))?;
    let mode = meta.permissions().mode() & 0o777;
    // A group may read a key of root's, as Debian's ssl-cert does it.
    let allowed = if meta.uid() == 0 { 0o740 } else { 0o700 };
    if mode & !allowed != 0 {
        return Err(format!(
            "{named} can be used by others (mode {mode:03o}); say: chmod 600 {}",
            path.display()
        ));
    }
    check_owner(&meta, path, &named)?;
    let bytes = read(file, &named)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        PemError::NoItemsFound if contains(&bytes, b"ENCRYPTED PRIVATE KEY") => format!(
            "{named} is encrypted, and nobody is there to type the word; say: openssl pkey -in {} \
             -out NEW",
            path.display()
        ),
        PemError::NoItemsFound => format!(
            "{named} has no private key in it; it is to be PEM text with '-----BEGIN PRIVATE \
             KEY-----'"
        ),
        error => format!("{named} is no whole PEM file: {error}"),
    })
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
