//! Translates between frames and the engine: a frame of a link becomes an
//! [`Input`](crate::engine::input::Input), an [`Action`](crate::engine::action::Action) that sends
//! becomes a frame. Pure functions; `protocol` reads and writes the bytes. An operator's answer in
//! JSON is made here, too, because `protocol` names no crate that knows JSON.

pub mod inbound;
#[cfg(feature = "os")]
mod json;
#[cfg(feature = "os")]
pub mod outbound;
