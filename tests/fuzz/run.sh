#!/usr/bin/env bash
# Fuzzes one target for so many seconds, from the repository's corpus and the seeds of the tests:
#   tests/fuzz/run.sh TARGET SECONDS [flags of libFuzzer]
# and with `keep` in place of the seconds writes what was found, minimised, into the corpus.
# Works with a stable compiler (RUSTC_BOOTSTRAP) and without a sanitizer: the code is safe Rust, and
# broken laws are panics. Needs `cargo install cargo-fuzz`.
set -euo pipefail
cd "$(dirname "$0")"
target=$1 seconds=$2
shift 2
export RUSTC_BOOTSTRAP=1 CARGO_TERM_COLOR=never
found="target/found/$target"
dict=()
[ ! -f "dict/$target.dict" ] || dict=(-dict="dict/$target.dict")
if [ "$seconds" = keep ]; then
  cargo fuzz cmin --fuzz-dir . -s none "$target" "$found" -- -max_len=4096
  (cd .. && cargo run -q --example corpus -- pack "$target" "fuzz/$found")
  exit
fi
mkdir -p "$found"
(cd .. && cargo run -q --example corpus -- unpack "$target" "fuzz/$found")
cargo fuzz run --fuzz-dir . -s none "$target" "$found" -- \
  -max_total_time="$seconds" -timeout=20 -rss_limit_mb=1024 -max_len=4096 \
  "${dict[@]}" -print_final_stats=1 "$@"
