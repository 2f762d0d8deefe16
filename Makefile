# Everything a contributor needs, with nothing installed but Go, make and git.
# Tools and binaries go to .cache/bin; "make" alone lists the targets.

BIN     := $(CURDIR)/.cache/bin
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.released=$(VERSION)

# The race detector needs a C compiler; without one the tests run without it.
CC_FOUND := $(shell set -- $$(go env CC); command -v "$$1" 2>/dev/null)
# SQLite, translated from C, is not ours to look for races in, and slow with it.
RACE     := $(if $(CC_FOUND),-race -gcflags=modernc.org/...=-race=false)

# TESTFLAGS goes to go test, as in: make test TESTFLAGS='-run TestCopy -count=1'
TESTFLAGS  ?=
TIMEOUT    ?= 40m
FUZZTIME   ?= 30s
BENCH      ?= .
BENCHFLAGS ?= -benchmem
SCALE      ?= 1000,10000,100000,1000000
ONCE       ?=
DURATION   ?= 30m
SEEDS      ?= 2000
CLOUDS     ?=

.DEFAULT_GOAL := help
.PHONY: help build test unit integration race-check lint fmt vet bench bench-scale profile fuzz simulate mutate demo soak tools registry daemon daemon-race clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

build: ## build the static binary: ./twinport
	CGO_ENABLED=0 go build -trimpath -tags timetzdata -ldflags '$(LDFLAGS)' -o twinport ./cmd/twinport

test: race-check unit integration ## unit and integration tests of both modules, with the race detector where there is a C compiler

unit: $(BIN)/test registry
	$(if $(RACE),CGO_ENABLED=1) $(BIN)/test test $(RACE) -timeout $(TIMEOUT) $(TESTFLAGS) ./...

integration: $(BIN)/test daemon $(if $(RACE),daemon-race) registry
	@.ci/build-tools crane regctl
	$(if $(RACE),CGO_ENABLED=1) $(BIN)/test -C integration test $(RACE) -timeout $(TIMEOUT) $(TESTFLAGS) ./...

race-check:
ifeq ($(RACE),)
	@echo 'no C compiler found: the tests run without the race detector'
	@test "$$CI" != true || { echo 'CI=true: the race detector may not be left out'; exit 1; }
endif

lint: ## gofmt, go vet and golangci-lint over both modules
	@$(MAKE) --no-print-directory fmt vet
	@.ci/build-tools golangci-lint
	$(BIN)/golangci-lint run
	cd integration && $(BIN)/golangci-lint run --config ../.golangci.yml

fmt:
	@unformatted=$$(git ls-files --cached --others --exclude-standard '*.go' | xargs gofmt -l); \
	test -z "$$unformatted" || { echo "not formatted (gofmt -w):"; echo "$$unformatted"; exit 1; }

vet:
	go vet ./...
	go -C integration vet ./...

bench: registry ## the benchmarks of both modules, readable with benchstat (BENCH=pattern)
	@.ci/bench '$(BENCH)' $(BENCHFLAGS)

bench-scale: ## time, memory and requests of plan and sweep at up to a million tags: some minutes (SCALE=1000,100000)
	go test -run '^$$' -bench '^BenchmarkScale$$' -benchtime 1x -timeout 2h ./cmd/twinport -scale $(SCALE)

profile: ## CPU and heap profiles of whole syncs, small blobs and large, to .cache/profile; prints the top of each
	@.ci/profile

fuzz: ## each fuzz target of both modules for FUZZTIME (30s)
	@.ci/fuzz $(FUZZTIME)

simulate: ## SEEDS (2000) simulated histories on all cores, from FIRST (0) on (TWICE=1: each two times; DETECT=1: with the race detector; SEED=n: one, with its way)
	$(if $(DETECT),CGO_ENABLED=1) SEEDS=$(SEEDS) FIRST=$(FIRST) TWICE=$(TWICE) SEED=$(SEED) \
		go test -C replicator/simulation -count=1 -run '^TestSimulation$$' -timeout 0 $(if $(SEED),-v) $(if $(DETECT),$(RACE))

mutate: ## break each promise once, in a copy of the tree, and tell which test caught it
	@.ci/mutate

demo: daemon registry ## three registries, three regions, a push that arrives in all of them (ONCE=1: check it and exit; CLOUDS=1: fakes of ECR, ACR and Artifact Registry)
	@$(if $(ONCE),ONCE=$(ONCE)) $(if $(CLOUDS),CLOUDS=$(CLOUDS)) go -C integration run ./demo

soak: daemon registry ## constant load with faults for DURATION (30m): all has to converge, goroutines, descriptors, memory and disk to stay flat
	@go -C integration run ./soak -duration $(DURATION)

tools: ## build the tools of .ci/tools into .cache/bin (TOOLS=name for one)
	@.ci/build-tools $(TOOLS)

clean: ## remove what was built
	rm -rf .cache twinport

# CNCF distribution's registry, at the version that the integration module pins.
registry:
	@mkdir -p $(BIN)
	@test -x $(BIN)/registry || echo 'building the test registry (once, takes minutes)'
	@CGO_ENABLED=0 go -C integration build -o $(BIN)/registry github.com/distribution/distribution/v3/cmd/registry

# The daemon for tests and the demo. Without -trimpath: what go test compiled serves.
daemon:
	@mkdir -p $(BIN)
	CGO_ENABLED=0 go build -o $(BIN)/twinport ./cmd/twinport

# The same with the race detector, for the tests that set no memory limit.
daemon-race:
	@mkdir -p $(BIN)
	CGO_ENABLED=1 go build $(RACE) -o $(BIN)/twinport-race ./cmd/twinport

$(BIN)/test: .ci/test.go
	@mkdir -p $(BIN)
	@go build -o $@ .ci/test.go
