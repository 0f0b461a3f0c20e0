//! The streams of every port of isect: TCP or a Unix socket, with TLS over it or without, by rustls
//! with ring. Broker, execd and clients share this crate, so that they refuse the same things with
//! the same words. Each program has its own loop.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`stream`] | one connected socket, and who is at its other end |
//! | [`session`] | TLS on one connection: bytes of the socket ↔ bytes of frames |
//! | [`setup`] | what a listener or a caller needs: made at the start, and again at a reload |
//! | [`files`] | reads certificates and keys from PEM files, with errors that name file and cure |
//! | [`words`] | explains errors in words, with the cure; recognises the first bytes of TLS |
//! | [`end_point`] | the hash of a certificate to which proofs can be bound |
//! | [`validity`] | from when to when a certificate is valid |

pub mod end_point;
pub mod files;
pub mod session;
pub mod setup;
pub mod stream;
pub mod validity;
pub mod words;
