//! Translates between frames and the engine: a frame of a link becomes an
//! [`Input`](crate::engine::input::Input), an [`Action`](crate::engine::action::Action) that sends
//! becomes a frame. Pure functions; `protocol` reads and writes the bytes.

pub mod inbound;
pub mod outbound;
