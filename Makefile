# What is done often. Every target may be run at any time; `make` alone lists them.

CARGO ?= cargo

.PHONY: help setup build test test-long demo lint docs clean

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
