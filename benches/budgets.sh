#!/usr/bin/env bash
# What a request may cost, in figures that do not wander with the machine: heap allocations in the steady
# state, and instructions counted by callgrind (needs valgrind). `budgets.sh --update` writes them anew.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo bench -p isect-benches --bench allocations
cargo run --release -p isect-benches --bin isdbench -- budgets "$@"
# The worst step of each command and input, with all that a broker is to hold: below 5 ms.
cargo run --release -p isect-benches --bin isdbench -- worst > /dev/null
