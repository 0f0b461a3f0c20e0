//! TLS for every port of isect, by rustls with ring: certificates come from files, and a session
//! moves bytes over any socket. One crate, because broker, execd and clients must agree on what is
//! refused and how that is said. Not a socket and not a loop: each program brings its own.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`files`] | PEM files → certificates and keys, with errors that name file and cure |
//! | [`setup`] | what a listener or a caller needs: made once, and again at a reload |
//! | [`session`] | one connection: bytes of the socket ↔ bytes of frames |
//! | [`words`] | what went wrong, in words with a cure; what first bytes look like |
//! | [`validity`] | from when to when a certificate is good |

pub mod files;
pub mod session;
pub mod setup;
pub mod validity;
pub mod words;
