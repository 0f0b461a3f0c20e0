#!/usr/bin/env bash
# What is too wide or too long for the gate: many simulation seeds, long faults and overload, the
# tests again in the release profile, execd under the address sanitizer, fuzzing.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=never

printf '\n== simulation, %s seeds\n' "${SIM_SEEDS:-10000}"
SIM_SEEDS="${SIM_SEEDS:-10000}" cargo test --release -p isect-tests --test sim -- --nocapture

printf '\n== overload, long\n'
cargo build --release --workspace --bins
OVERLOAD=long cargo test --release -p isect-tests --test e2e_overload --test e2e_flood --test e2e_slow -- --nocapture --test-threads 1
# The wall clock can be stepped where this library is; elsewhere the run says that it was not.
if ! ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  apt-get install -y -qq faketime || true
fi
seed="${FAULT_SEED:-$(date +%j)}"
printf '\n== fault run, %s seconds, seed %s\n' "${FAULT_SECONDS:-600}" "$seed"
cargo build --release --workspace --bins
export FAULT_SECONDS="${FAULT_SECONDS:-600}" FAULT_SEED="$seed"
cargo test --release -p isect-tests --test fault -- --nocapture
cargo test --release -p isect-tests --test fault_secured -- --nocapture
cargo test --release -p isect-tests --test fault_bus -- --nocapture
unset FAULT_SECONDS FAULT_SEED

printf '\n== all tests, release profile\n'
cargo test --release --workspace

# The gate runs them with one interpreter, and the fast ones with the oldest and the newest.
printf '\n== the Python library, each interpreter\n'
for folder in "${PYENV_ROOT:-${HOME:-/root}/.pyenv}"/versions/3.*/bin; do
  if [ -d "$folder" ]; then PATH="$PATH:$folder"; fi
done
cargo build --workspace --bins --examples
ISECT_PYTHON_EACH=1 cargo test -p isect-tests --test e2e_python

# The one module with unsafe code. Each execd and worker that the tests start is built with it, too;
# what it finds ends the process, and the test with it. The stable compiler can, if it is told so.
host="$(rustc -vV | sed -n 's/^host: //p')"
if [ "$host" = x86_64-unknown-linux-gnu ]; then
  printf '\n== execd under the address sanitizer\n'
  RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address CARGO_TARGET_DIR=target/asan \
    cargo test --target "$host" -p isect-execd
fi

if cargo fuzz --version >/dev/null 2>&1; then
  for target in $(cargo run -q -p isect-tests --example corpus -- targets); do
    printf '\n== fuzzing %s for %s s\n' "$target" "${FUZZ_SECONDS:-600}"
    tests/fuzz/run.sh "$target" "${FUZZ_SECONDS:-600}"
  done
fi

if cargo deny --version >/dev/null 2>&1; then
  printf '\n== licences, duplicates, sources\n'
  cargo deny check licenses bans sources
  cargo deny check advisories || printf 'advisories: not checked, or something was found; see above\n'
fi
