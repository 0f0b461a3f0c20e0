//! Words ↔ events, pure: a frame of a link becomes an [`Input`](crate::engine::input::Input), an
//! [`Action`](crate::engine::action::Action) that sends becomes a frame. Not the bytes (protocol)
//! and not the decision (engine).

pub mod inbound;
pub mod outbound;
