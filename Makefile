.PHONY: help build test lint fuzz demo ci setup

help:
	@echo 'make build   the program, for daily work'
	@echo 'make test    install what the tests need, and run all of them'
	@echo 'make lint    formatting, clippy and documentation, warnings denied'
	@echo 'make fuzz    every fuzz target for a minute'
	@echo 'make demo    a complete trial on this machine'
	@echo 'make ci      everything that has to pass'

build:
	cargo build --locked

setup:
	scripts/setup-tests.sh

test: setup
	cargo test --locked

lint:
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --lib --document-private-items

fuzz: setup
	scripts/fuzz.sh

demo:
	cargo run --locked -- demo

ci:
	.ci/run
