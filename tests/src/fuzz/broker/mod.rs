//! Fuzzes the broker's engine as a state machine. Bytes become a sequence of moves; frames go
//! through the real `translate`. After each step all laws of the engine must hold, and so must the
//! checker's: every accepted request gets exactly one outcome, `ran: no` is true, and a request
//! runs twice only if that was allowed.
//!
//! | file | what it is |
//! | --- | --- |
//! | [`player`] | what the reactor does around the engine |
//! | [`checker`] | who was promised what |
//! | [`moves`] | bytes → what happens next |
//! | [`words`] | bytes → frames and operator commands |
//! | `bus` | topics and instances: their moves, and who was promised what |

mod bus;
pub mod checker;
pub mod moves;
pub mod player;
mod tokens;
pub mod words;

use super::source::Source;
use checker::Sabotage;
use player::BrokerPlayer;
use protocol::time::Tick;

/// Most moves of one input; what follows is not looked at.
const MOVES_MAX: usize = 400;
/// Longer than any deadline that a request may have.
const LEAP_MS: u64 = 2 * 3_600_000;

/// Bytes as what happens to a broker.
pub fn broker(data: &[u8]) {
    run(data, Sabotage::None);
}

/// The same, with a broker that is not to be trusted; says what it did, action by action.
pub fn run(data: &[u8], sabotage: Sabotage) -> u64 {
    let mut source = Source::new(data);
    let flags = source.byte();
    let mut player = BrokerPlayer::new(sabotage);
    player.begin(flags);
    for _ in 0..MOVES_MAX {
        if source.is_empty() || player.has_ended {
            break;
        }
        moves::next(&mut player, &mut source);
        player.read_resumed();
    }
    let trace = player.trace;
    if !player.has_ended {
        end(&mut player);
    }
    trace
}

/// Nobody says anything any more: all requests have their outcome when their time is over, and what
/// was configured is read back as it was.
fn end(player: &mut BrokerPlayer) {
    player.resume_all();
    player.shell.now = Tick(player.shell.now.0 + LEAP_MS * 1000);
    player.pass_time();
    if player.has_ended {
        return;
    }
    player.checker.check_all_answered();
    player.close_all();
    let totals = player.shell.engine.totals();
    assert_eq!(totals.accepted, totals.ended, "something is under way without a client");
    player::check_save(&player.shell.engine, player.has_execd);
}
