# Kai's commands. `make` alone lists them. Only Go and make are needed for run and test.

SHELL := /bin/sh
export CGO_ENABLED := 0

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
GOBUILD   = go build -trimpath -buildvcs=false -ldflags "-s -w -buildid= -X main.version=$(VERSION)"

# What a command line may set.
PORT     ?= 11211
NODES    ?= 3
FUZZTIME ?= 10s
SEEDS    ?= 1000
RECORDS  ?= 1000000
BENCH    ?= compare -kai bin/kai
IMAGE    ?= kai:dev
GO_IMAGE ?= golang:1.26
STATICCHECK ?= honnef.co/go/tools/cmd/staticcheck@v0.8.1

.PHONY: help build run up down observe test race lint fuzz sim bench cost study servers e2e soak image image-local up-docker down-docker containers infra clean
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/kai
	@mkdir -p bin
	$(GOBUILD) -o bin/kai ./node/cmd/kai

run: build ## one node on 127.0.0.1:11211, data in ./data; stop it with Ctrl-C
	@exec env KAI_LOG_FORMAT="$${KAI_LOG_FORMAT:-text}" bin/kai node --hints

up: build ## three nodes on this machine, data and logs in ./run (PORT=11211 NODES=3)
	@PORT=$(PORT) NODES=$(NODES) .dev/up

down: ## stop exactly the nodes that make up started; their data stays
	@.dev/down

observe: ## Debian's prometheus against make up, with the alerts (OBSERVE_PORT=9090); stop it with Ctrl-C
	@PORT=$(PORT) .dev/observe

test: ## go vet and all fast tests
	go vet ./...
	go test ./...

race: ## all fast tests with the race detector (needs a C compiler)
	CGO_ENABLED=1 go test -race ./...

lint: ## gofmt, go vet, staticcheck
	@bad=$$(find . -name '*.go' -not -path './vendor/*' -exec gofmt -l {} +); \
	  if [ -n "$$bad" ]; then echo "not formatted; run gofmt -w on:"; echo "$$bad"; exit 1; fi
	go vet ./...
	go run $(STATICCHECK) ./...

fuzz: ## every fuzz target for FUZZTIME=10s each
	@.dev/fuzz $(FUZZTIME)

sim: ## the simulated cluster, SEEDS=1000 histories checked for linearizability
	SEEDS=$(SEEDS) go test ./node/nodetest -run 'TestSim' -v -count=1 -timeout 0

bench: build ## load generator: Kai beside memcached (BENCH="run -h" and BENCH="compare -h" list its flags)
	$(GOBUILD) -o bin/kaibench ./node/cmd/kaibench
	bin/kaibench $(BENCH)

cost: ## what telemetry costs a request, held to its limits (a minute; on a machine that does nothing else)
	KAI_COST=1 go test ./node ./node/quorum ./node/memcache -run TestCost -v -count=1 -p 1

study: ## what grows with a cluster, to 1,000 nodes: measures it anew, writes node/study.csv, draws node/study.svg (half an hour)
	rm -f bin/gossip.csv && mkdir -p bin
	STUDY=$(CURDIR)/bin/gossip.csv go test ./node/membership -run TestStudyGossip -v -count=1 -timeout 2h
	$(GOBUILD) -o bin/kaistudy ./node/cmd/kaistudy
	bin/kaistudy -figures node/study.csv -gossip bin/gossip.csv -plot node/study.svg

servers: ## servers of S3 and GCS for tests, into bin (three minutes the first time); make test and make e2e use them if they are there
	@mkdir -p bin
	go build -C backup/servers -trimpath -ldflags "-s -w" -o $(CURDIR)/bin/ github.com/versity/versitygw/cmd/versitygw github.com/fsouza/fake-gcs-server

e2e: ## real processes, real faults (as root also network faults)
	KAI_E2E=1 go test ./node/e2e -v -count=1 -timeout 45m

soak: ## what takes long: RECORDS=1000000 through every change, nodes hung and cut off for long
	KAI_E2E=1 KAI_E2E_SOAK=1 RECORDS=$(RECORDS) go test ./node/e2e -v -count=1 -timeout 3h \
	  -run 'TestElastic|TestHungNode|TestLongPartition|TestChurn|TestBackup$$|TestBackupIsKilled'

image: ## container image IMAGE=kai:dev, built on GO_IMAGE=golang:1.26
	docker build --build-arg GO_IMAGE=$(GO_IMAGE) --build-arg VERSION=$(VERSION) $(DOCKER_FLAGS) -t $(IMAGE) .

image-local: ## the same where no registry is in reach: of this machine's Go, without a network
	@IMAGE=$(IMAGE) VERSION=$(VERSION) .dev/image-local

up-docker: ## three containers of IMAGE on this machine's ports (PORT=11211 NODES=3)
	@IMAGE=$(IMAGE) PORT=$(PORT) NODES=$(NODES) .dev/docker up

down-docker: ## stop exactly those; their volumes stay, but with DATA=remove
	@DATA=$(DATA) .dev/docker down

containers: ## three containers of IMAGE: start, kill, restart, cut off, check (build it with make image)
	@IMAGE=$(IMAGE) .dev/containers

infra: ## the modules for AWS, Google Cloud and Kubernetes: formats, tests, plans (terraform and its provider where they are there)
	KAI_INFRA=1 go test ./terraform -v -count=1 -timeout 30m
	cd terraform/kubernetes/check && go vet ./... && go test -v -count=1 ./...

clean: down ## stop make up's nodes; remove bin and run (the data of make run stays)
	rm -rf bin run
