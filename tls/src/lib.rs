//! TLS for every port of isect, by rustls with ring. Certificates come from files, and a session
//! moves bytes over any socket. Broker, execd and clients share this crate, so that they refuse the
//! same things with the same words. Each program has its own sockets and loop.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`files`] | reads certificates and keys from PEM files, with errors that name file and cure |
//! | [`setup`] | what a listener or a caller needs: made at the start, and again at a reload |
//! | [`session`] | one connection: bytes of the socket ↔ bytes of frames |
//! | [`words`] | explains errors in words, with the cure; recognises the first bytes of TLS |
//! | [`validity`] | from when to when a certificate is valid |

pub mod files;
pub mod session;
pub mod setup;
pub mod validity;
pub mod words;
