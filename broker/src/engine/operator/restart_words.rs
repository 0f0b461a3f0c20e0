//! What the settings say of restarts, in words: how often a worker may end before it is given up is
//! hard to see from five numbers.

use crate::engine::catalog::Service;
use crate::engine::wall_clock::short;
use protocol::{Micros, Setting, Settings};

/// How often a worker of a service is started again, and when no more.
pub(super) fn restart_words(service: &Service, settings: &Settings) -> String {
    let get = |setting| settings.get(setting);
    let span = |setting| short(Micros(get(setting).saturating_mul(1000)));
    let (early, minute) = (get(Setting::RestartEarlyMax), get(Setting::RestartMinuteMax));
    let least = span(Setting::RestartMinMs);
    let most = short(Micros(
        get(Setting::RestartMaxMs).max(get(Setting::RestartMinMs)).saturating_mul(1000),
    ));
    let then = if service.is_on_demand() {
        "requests are refused until the next wait is over, and one after that starts it again"
    } else {
        "it has failed, until 'start'"
    };
    format!(
        "each worker at once, then after {least}, twice as long each time, at most {most}; ready for \
         {quiet}, it begins anew; with {early} ends in a row before it was ready, or {minute} in a \
         minute, {then}",
        quiet = span(Setting::RestartQuietMs)
    )
}
