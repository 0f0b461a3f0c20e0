//! How long a peer may be silent, by the settings.

use protocol::settings::{Setting, Settings};

/// Heartbeats in each `heartbeat_ms`: silence is noticed late by this share of it at most.
pub(crate) const BEATS: u64 = 4;

/// How much silence of a link is borne, counted in heartbeats.
pub(crate) struct SilenceLimits {
    pub(crate) ping_each: u32,
    pub(crate) end: u32,
}

/// Milliseconds between two heartbeats by the setting.
pub(crate) fn beat_set_ms(settings: &Settings) -> u64 {
    settings.get(Setting::HeartbeatMs) / BEATS
}

/// The silence that is the end, as announced to workers and clients: they hear of the broker often
/// enough to hold it to the same. At least two beats, whatever the settings, so that a ping can be
/// answered.
pub(crate) fn silence_ms(settings: &Settings) -> u64 {
    settings.get(Setting::SilenceMs).max(2 * beat_set_ms(settings))
}
