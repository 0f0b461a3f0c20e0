//! Whatever programs announce and say of instances, and operators of groups: the laws of the engine
//! hold after each step, and a second engine that gets the same does the same.

use isect_tests::script;
use isect_tests::sim::rng::Rng;

/// Clients of a script, and which of them are logged in.
const CLIENTS: [&str; 4] = ["c1", "c2", "c3", "c4"];
const NAMES: [&str; 3] = ["pump", "valve", "echo"];
const GROUPS: [&str; 4] = ["night", "day", "echo", "night,day"];
const STATES: [&str; 5] = ["starting", "running", "stopping", "stopped", "100"];

fn one<'a>(rng: &mut Rng, of: &[&'a str]) -> &'a str {
    of[rng.index(of.len())]
}

fn ordinary(rng: &mut Rng, client: &str) -> String {
    let (name, group, state) = (one(rng, &NAMES), one(rng, &GROUPS), one(rng, &STATES));
    let (id, checkpoint) = (rng.between(1, 6), rng.below(3));
    match rng.below(14) {
        0..=3 => {
            let timeout = rng.between(100, 2000);
            format!(
                "{client} announces {name} {id} groups={group} state={state} timeout={timeout} \
                 stalled={}",
                rng.below(900)
            )
        }
        4..=6 => format!("{client} beats {id}={checkpoint} {}={checkpoint}:idle", id + 1),
        7 | 8 => format!("{client} turns {id} {state} \"{checkpoint}\""),
        9 => format!("{client} withdraws {id}"),
        10 => format!("{client} withdraws {id} failed \"why\""),
        11 => format!("op config group {} min={} {name}", one(rng, &GROUPS[..3]), id),
        12 => format!("op instance {name} {id}"),
        _ => format!("op group {}", one(rng, &GROUPS[..3])),
    }
}

fn rare(rng: &mut Rng) -> String {
    match rng.below(9) {
        0 => format!("op delete group {}", one(rng, &GROUPS[..3])),
        1 => format!("op set instance_history_max {}", rng.below(6)),
        2 => format!("op set instances_max {}", rng.between(3, 9)),
        3 => "op groups".to_owned(),
        4 => "op instances".to_owned(),
        5 => format!("broker oversleeps {}ms", rng.between(1, 3000)),
        6 => "op instances history".to_owned(),
        7 => format!("op set instances_bytes_max {}", rng.between(1500, 9000)),
        _ => "op instances group day".to_owned(),
    }
}

/// A script of so many lines; nothing is expected of them.
fn random_script(seed: u64, lines: usize) -> String {
    let mut rng = Rng::new(seed);
    let mut text = String::from("== random\nservice echo has 2 workers\n");
    text += "c9 logs in to bus\nc9 subscribes 1 isect.state.>\n";
    let mut states = [(false, false); CLIENTS.len()];
    for _ in 0..lines {
        let at = rng.index(CLIENTS.len());
        let (client, (is_in, is_congested)) = (CLIENTS[at], states[at]);
        let line = match rng.below(20) {
            _ if !is_in => {
                states[at] = (true, false);
                let other = if rng.below(2) == 0 { "" } else { " as other-user" };
                // One that asks a service is not read while it takes nothing.
                let service = one(&mut rng, &["bus", "echo"]);
                format!("{client} logs in to {service}{other}")
            }
            0 => {
                states[at] = (false, false);
                format!("{client} {}", one(&mut rng, &["breaks", "closes", "logs out"]))
            }
            1 => {
                states[at].1 = !is_congested;
                format!("{client} is {}congested", if is_congested { "un" } else { "" })
            }
            2..=5 => format!("+{}ms", rng.between(1, 700)),
            6 => rare(&mut rng),
            _ => ordinary(&mut rng, client),
        };
        text += &line;
        text.push('\n');
    }
    text
}

#[test]
fn the_laws_hold_whatever_programs_announce() {
    let mut shown = String::new();
    for seed in 0..40 {
        let text = random_script(seed, 250);
        let report = script::run(&format!("seed {seed}"), &text, false);
        assert_eq!((report.cases, report.failures), (1, Vec::<String>::new()), "seed {seed}");
        let mut world = script::world_after(&text).unwrap();
        for command in ["instances", "instances history", "groups"] {
            shown += &script::ask(&mut world, "op", command, &[]).unwrap();
        }
    }
    // All that may become of an instance or a group became of one.
    for word in [
        "withdrawn",
        "failed",
        "closed",
        "lost",
        "displaced",
        "timed out",
        "yes",
        "running",
        "starting",
        "error",
        "down",
    ] {
        assert!(shown.contains(word), "nothing was {word}");
    }
}
