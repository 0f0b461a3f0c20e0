//! Measures the nanoseconds of single steps of the broker without sockets: `cargo bench --bench
//! steps`. Times vary with the machine; instruction counts do not, and `budgets.toml` limits those.

use isect_benches::clock;
use isect_benches::steps::STEPS;
use isect_benches::table::Spread;
use std::io::Write;
use std::process::ExitCode;

const WARM: u64 = 20_000;
const COUNT: u64 = 200_000;
const ROUNDS: usize = 5;

fn main() -> ExitCode {
    for row in STEPS {
        let line = match measure(row) {
            Ok(spread) => format!(
                "{:<24}{:>8.0} ns ({:.0} to {:.0}): {}",
                row.name, spread.median, spread.min, spread.max, row.text
            ),
            Err(why) => {
                let _ = writeln!(std::io::stderr(), "{}: {why}", row.name);
                return ExitCode::FAILURE;
            }
        };
        if writeln!(std::io::stdout(), "{line}").is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn measure(row: &isect_benches::steps::StepRow) -> Result<Spread, String> {
    let mut step = row.prepare()?;
    (0..WARM).try_for_each(|_| step.once())?;
    let mut nanos = Vec::new();
    for _ in 0..ROUNDS {
        let begun = clock::now();
        (0..COUNT).try_for_each(|_| step.once())?;
        nanos.push(clock::nanos(begun, clock::now()) as f64 / COUNT as f64);
    }
    Spread::of(nanos).ok_or_else(|| "nothing was measured".to_owned())
}
