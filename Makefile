# What is done often. Every target may be run at any time; `make` alone lists them.

CARGO ?= cargo

FUZZ_SECONDS ?= 60
MUTANTS ?= --package pacharc-format
# Twenty programs, each of which link-time optimisation would make from all that pacharc stands on.
fuzz: export CARGO_PROFILE_RELEASE_LTO = off

.PHONY: help setup build test test-long bench scale fuzz mutants demo lint docs clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: ## install what tests and demo need and this machine lacks
	@tests/setup.sh

build: ## the release binary: target/release/pacharc
	$(CARGO) build --release --locked

test: setup lint ## setup, lint, and every test but the long ones
	$(CARGO) test --workspace --locked --no-fail-fast

test-long: setup ## the large runs: hours, gigabytes
	$(CARGO) test --release --workspace --locked -- --ignored --test-threads=1 --skip generate --skip bucket_environment::child

mutants: ## cargo-mutants over the format, or what MUTANTS says (docs/mutation.md); needs cargo-mutants, and hours
	@$(CARGO) mutants --version >/dev/null 2>&1 || { echo "needs: cargo install cargo-mutants --locked"; exit 1; }
	$(CARGO) mutants --jobs 1 $(MUTANTS)

bench: ## pacharc beside what does a like job, all goals: hours, 36 GB; BENCH='--scale 0.01 --samples 1' to try it
	$(CARGO) build --release --locked --bin pacharc
	$(CARGO) build --release --locked --package pacharc-sample
	benches/compare $(BENCH)

scale: ## what an object costs, from 10^3 to 10^7 of them: hours, 25 GB; SCALE='--to 5' for less
	$(CARGO) build --release --locked --bin pacharc
	$(CARGO) build --release --locked --package pacharc-sample
	benches/scale $(SCALE)

fuzz: ## cargo-fuzz on every parser, FUZZ_SECONDS each; needs a nightly compiler and cargo-fuzz
	@$(CARGO) +nightly fuzz --version >/dev/null 2>&1 || { \
	echo "needs: rustup toolchain install nightly && cargo install cargo-fuzz"; exit 1; }
	$(CARGO) +nightly fuzz build --features libfuzzer
	@built=$${CARGO_TARGET_DIR:-target}/$$(rustc +nightly -vV | sed -n 's/^host: //p')/release; \
	for target in $$(ls fuzz/fuzz_targets | sed 's/\.rs$$//'); do \
	$$built/pacharc-fuzz-seeds fuzz/corpus/$$target $$target && \
	$(CARGO) +nightly fuzz run --features libfuzzer $$target -- -max_total_time=$(FUZZ_SECONDS) \
	-rss_limit_mb=1024 -malloc_limit_mb=256 -max_len=200000 || exit 1; done

demo: setup ## a backup and a restore before your eyes
	@$(CARGO) build --release --locked --quiet --bin pacharc
	@$(CARGO) build --release --locked --quiet --package pacharc-sample
	@demo/run.sh

lint: ## format and clippy, warnings denied; licences and advisories where cargo-deny is installed
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- --deny warnings
	@if command -v cargo-deny >/dev/null; then cargo-deny --offline check bans licenses sources; \
	else echo "skipped: cargo-deny is not installed"; fi

docs: ## the libraries' documentation, warnings denied
	RUSTDOCFLAGS="--deny warnings" $(CARGO) doc --workspace --no-deps --locked

clean: ## remove what was built
	$(CARGO) clean
