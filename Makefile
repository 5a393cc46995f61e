TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help build release test lint fuzz demo ci setup bench bench-quick bench-outage bench-growth bench-build gate

help:
	@echo 'make build   the program, for daily work'
	@echo 'make release the program as it is released, made by a profile of its work'
	@echo '             (some twenty minutes): $(TARGET)/optimized/cloakroom'
	@echo 'make test    install what the tests need, and run all of them'
	@echo 'make lint    formatting, clippy and documentation, warnings denied'
	@echo 'make fuzz    every fuzz target for a minute'
	@echo 'make bench   what a request costs, beside other proxies (half an hour);'
	@echo '             make bench-quick: a few minutes, and less certain'
	@echo '             make bench-outage: Redis dead for ten seconds under load'
	@echo '             make bench-growth: many routes, many sessions'
	@echo 'make gate    instructions and system calls of a request against the baseline'
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

release:
	scripts/release.sh

bench-build: release
	scripts/setup-bench.sh

bench: bench-build
	python3 bench/hot/measure.py $(TARGET)/optimized/cloakroom $(TARGET)/bench/release/cloakroom-bench bench/results --docs docs/performance.md

bench-quick: bench-build
	python3 bench/hot/measure.py --quick $(TARGET)/optimized/cloakroom $(TARGET)/bench/release/cloakroom-bench $(TARGET)/bench/quick

bench-outage: bench-build
	python3 bench/hot/outage.py $(TARGET)/optimized/cloakroom $(TARGET)/bench/release/cloakroom-bench $(TARGET)/outage --docs docs/outages.md

bench-growth: bench-build
	python3 bench/hot/growth.py $(TARGET)/optimized/cloakroom $(TARGET)/bench/release/cloakroom-bench --docs docs/performance.md

gate:
	bench/gate

demo:
	cargo run --locked -- demo

ci:
	.ci/run
