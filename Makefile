# Larder. `make demo` and `make test` are the two to know; each installs what it needs and lacks, says so, and is quick the
# second time. What is built and installed goes to the cache directory, outside of the clone; only web/ has its own.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test web build dist lint docs bench bench-peers tools-build tools-web tools-demo tools-test tools-bench tools-peers

export LARDER_CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/larder
export CARGO_TARGET_DIR ?= $(LARDER_CACHE)/target
export LARDER_TEST_PYTHON ?= $(LARDER_CACHE)/python/bin/python
# A newer node than the system's stands here where that was too old.
export PATH := $(LARDER_CACHE)/node/node_modules/.bin:$(PATH)

# One profile for everything, so that `make demo` and `make test` share what is built.
CARGO_FLAGS := --release --locked
CRATES := larder wire cache edge origin search activity control victim benches fuzz

help:
	@echo 'make demo    run origin, control and two edges here, with a clip to watch; Ctrl-C ends it'
	@echo '             INPUT=film.mp4 your own film; ONCE=1 plays it all twice, checks every byte, and ends'
	@echo 'make test    everything that must hold, a browser and a foreign HTTP/3 client included'
	@echo 'make build   the binary, with the player in it: $(CARGO_TARGET_DIR)/release/larder'
	@echo 'make dist    the same for installing: slower to build, faster to run: $(CARGO_TARGET_DIR)/dist/larder'
	@echo 'make web     the player alone'
	@echo 'make lint    formatting and clippy'
	@echo 'make docs    the documentation of the code'
	@echo 'make bench   the benchmarks, with their peers beside them'
	@echo 'make bench-peers  an edge beside nginx and other servers, about an hour; ARGS="--only nginx --paths h3-16 --rounds 3" for less'

demo: tools-demo build
	@$(CARGO_TARGET_DIR)/release/larder demo $(if $(INPUT),--input '$(INPUT)') $(if $(ONCE),--once) $(ARGS)

build: tools-build web/dist/index.html
	@cargo build $(CARGO_FLAGS) --bin larder

dist: tools-build web/dist/index.html
	@cargo build --profile dist --locked --bin larder

web: web/dist/index.html

test: tools-test web/dist/index.html lint docs
	@cd web && npm test
	@if cargo nextest --version >/dev/null 2>&1; then \
	    cargo nextest run $(CARGO_FLAGS) --workspace --no-fail-fast; \
	else \
	    cargo test $(CARGO_FLAGS) --workspace --all-targets --no-fail-fast; \
	fi

lint: tools-build
	@cargo fmt --all --check
	@! cargo tree --locked --workspace --prefix none | grep '^ring ' || { echo 'ring is in the tree: one TLS back end is enough, and it is aws-lc-rs' >&2; exit 1; }
	@cargo clippy $(CARGO_FLAGS) --workspace --all-targets -- -D warnings

docs: tools-build
	@RUSTDOCFLAGS='-D warnings' cargo doc $(CARGO_FLAGS) --no-deps $(CRATES:%=-p %)

# serve_hot is for a machine that does nothing else, and needs root: bench-peers.
bench: tools-bench
	@for bench in $(filter-out %/serve_hot.rs,$(wildcard benches/src/bin/*.rs)); do \
	    cargo run $(CARGO_FLAGS) --quiet -p benches --features peers --bin "$$(basename "$$bench" .rs)"; \
	done

bench-peers: tools-peers dist
	@cargo build $(CARGO_FLAGS) -p benches --bin serve_hot
	@$(if $(filter 0,$(shell id -u)),,sudo --preserve-env=LARDER_CACHE )$(CARGO_TARGET_DIR)/release/serve_hot --larder $(CARGO_TARGET_DIR)/dist/larder --out $(LARDER_CACHE)/serve_hot.json $(ARGS)
	@$(LARDER_CACHE)/plot/bin/python benches/serve_hot.py $(LARDER_CACHE)/serve_hot.json $(LARDER_CACHE)/serve_hot.png

# npm writes this file when it has installed everything.
web/node_modules/.package-lock.json: web/package-lock.json | tools-web
	@echo 'installing npm packages into web/node_modules'
	@cd web && npm ci --no-fund --no-audit
	@touch $@

web/dist/index.html: web/node_modules/.package-lock.json web/package.json web/build.mjs web/tsconfig.json web/index.html $(wildcard web/src/*)
	@cd web && npm run --silent build

tools-build:
	@tools/install.sh build

tools-web:
	@tools/install.sh web

tools-demo:
	@tools/install.sh build web media

tools-test:
	@tools/install.sh build web media browser python clients

tools-bench:
	@tools/install.sh build bench

tools-peers:
	@tools/install.sh build web peers plot
