#!/usr/bin/env bash
# What is too wide or too long for the gate: many simulation seeds, the tests again in the release
# profile, instruction budgets where valgrind is installed.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=never

printf '\n== simulation, %s seeds\n' "${SIM_SEEDS:-10000}"
SIM_SEEDS="${SIM_SEEDS:-10000}" cargo test --release -p isect-tests --test sim -- --nocapture

printf '\n== all tests, release profile\n'
cargo test --release --workspace
