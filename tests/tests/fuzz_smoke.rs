//! Runs the fuzz targets on stable: every stored input, and as many variants of them made from a
//! seed. `tests/fuzz/run.sh TARGET SECONDS` searches for new inputs.

use isect_tests::fuzz::broker::checker::Sabotage;
use isect_tests::fuzz::{TARGETS, Target, broker, corpus};
use isect_tests::sim::rng::Rng;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Random inputs for each target.
const RANDOM: u64 = 400;
/// Changed copies of stored inputs for each target.
const MUTANTS: u64 = 400;
/// Random inputs about topics and instances.
const BUS: u64 = 200;

fn try_run(target: &Target, input: &[u8]) -> Result<(), String> {
    let run = AssertUnwindSafe(|| (target.run)(input));
    catch_unwind(run).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        format!(
            "{}: {}\nthe input, a line for tests/fuzz/corpora/{}.hex:\n{}",
            target.name,
            text.unwrap_or_default(),
            target.name,
            hex::encode(input)
        )
    })
}

#[test]
fn every_input_that_is_kept_passes() {
    for target in TARGETS {
        let inputs = corpus::read(target.name).unwrap();
        assert!(inputs.len() > 20, "{} has {} inputs", target.name, inputs.len());
        for input in &inputs {
            try_run(target, input).unwrap_or_else(|broken| panic!("{broken}"));
        }
    }
}

#[test]
fn bytes_from_a_seed_pass() {
    for target in TARGETS {
        let mut rng = Rng::new(7);
        let inputs = corpus::read(target.name).unwrap();
        for round in 0..RANDOM + MUTANTS {
            let input = if round < RANDOM {
                let size = rng.below(200);
                (0..size).map(|_| rng.bits() as u8).collect()
            } else {
                mutant(&inputs, &mut rng)
            };
            try_run(target, &input).unwrap_or_else(|broken| panic!("{broken}"));
        }
    }
}

/// Half of the moves of these are about topics and instances.
#[test]
fn bytes_about_topics_and_instances_pass() {
    let target = TARGETS.iter().find(|target| target.name == "broker").unwrap();
    let mut rng = Rng::new(11);
    for _ in 0..BUS {
        let size = rng.below(1500);
        let mut input: Vec<u8> = (0..size).map(|_| rng.bits() as u8).collect();
        input.insert(0, 0xc0 | rng.below(8) as u8);
        try_run(target, &input).unwrap_or_else(|broken| panic!("{broken}"));
    }
}

/// The beginning of one input, a few wrong bytes, the end of another.
fn mutant(inputs: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let (a, b) = (rng.index(inputs.len()), rng.index(inputs.len()));
    let mut input = inputs[a][..rng.index(inputs[a].len() + 1)].to_vec();
    input.extend_from_slice(&inputs[b][rng.index(inputs[b].len() + 1)..]);
    for _ in 0..rng.below(4) {
        if !input.is_empty() {
            let at = rng.index(input.len());
            input[at] = rng.bits() as u8;
        }
    }
    input
}

/// The same bytes make the broker do the same again.
#[test]
fn the_same_bytes_do_the_same() {
    for input in corpus::read("broker").unwrap() {
        let (once, again) =
            (broker::run(&input, Sabotage::None), broker::run(&input, Sabotage::None));
        assert_eq!(once, again, "{}", hex::encode(&input));
    }
}

/// The corpus finds a broker that drops an answer, gives one twice, gives a wrong `ran`, or gives a
/// request to two workers.
#[test]
fn a_planted_fault_is_found() {
    let inputs = corpus::read("broker").unwrap();
    for sabotage in [
        Sabotage::Silence,
        Sabotage::Echo,
        Sabotage::Lie,
        Sabotage::Duplicate,
        Sabotage::MessageTwice,
        Sabotage::Unanswered,
        Sabotage::WrongSubscription,
    ] {
        let is_found = inputs
            .iter()
            .any(|input| catch_unwind(AssertUnwindSafe(|| broker::run(input, sabotage))).is_err());
        assert!(is_found, "{sabotage:?} passes on all inputs");
    }
}

#[test]
fn each_target_is_there_for_cargo_fuzz() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    for target in TARGETS {
        let path = format!("fuzz_targets/{}.rs", target.name);
        assert!(manifest.contains(&format!("path = \"{path}\"")), "{path} is not in Cargo.toml");
        let text = std::fs::read_to_string(folder.join(&path)).unwrap();
        assert!(text.contains(&format!("run(\"{}\"", target.name)), "{path} runs another");
    }
    let files = std::fs::read_dir(folder.join("fuzz_targets")).unwrap();
    assert_eq!(files.count(), TARGETS.len(), "a file without a row in TARGETS");
}
