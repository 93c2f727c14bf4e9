# codis-operator. `make help` lists the targets; every variable below can be given on the command line.

LAB         ?= $(wildcard ../shared/lab)
LAB_CACHE   ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/codis-lab
KIND_CLUSTER ?= codis
KUBE_CONTEXT ?= kind-$(KIND_CLUSTER)
# The node image of `make kind-up` where the lab isn't there; empty: kind's own default.
KIND_NODE_IMAGE ?=
# The base of both images. It must be at least as new as the machine that cargo builds on.
BASE        ?= $(if $(LAB),lab/debian,debian:bookworm-slim)
# A Debian mirror for the stand-in's image, where the base has none of its own.
MIRROR      ?=
CARGO_FLAGS ?=
OPERATOR_IMAGE ?= codis-operator:dev
DOUBLE_IMAGE   ?= codis-double:dev
GIT_IMAGE      ?= codis-git:dev
ETCD_IMAGE      ?= codis-etcd:dev
ZOOKEEPER_IMAGE ?= codis-zookeeper:dev
# The name that the samples give: the stand-in bears it too, so that they come up unchanged.
SAMPLES_IMAGE  ?= ccr.ccs.tencentyun.com/codis/codis3.2:latest
# The image of Codis that `make contract` looks at.
CODIS_IMAGE    ?= $(DOUBLE_IMAGE)
# Options of `make demo`: --serve, --repo PATH.
DEMO_FLAGS ?=
# What of a suite to run: words of stories' names, as in `make e2e TEST=switchovers`. ONLY is the older name of it.
ONLY ?=
TEST ?= $(ONLY)
# The worlds of `make simulate`, and the lives of its model.
SEEDS ?= 1..60
LIVES ?= 1..10000

ifneq ($(LAB),)
export PATH := $(LAB_CACHE)/bin:$(PATH)
endif
export LAB LAB_CACHE KIND_CLUSTER KUBE_CONTEXT KIND_NODE_IMAGE BASE MIRROR OPERATOR_IMAGE DOUBLE_IMAGE GIT_IMAGE ETCD_IMAGE ZOOKEEPER_IMAGE SAMPLES_IMAGE CODIS_IMAGE

KUBECTL := kubectl --context $(KUBE_CONTEXT)
SUITES  := --features codis-operator/e2e,codis-operator/chaos,codis-operator/bench,codis-operator/contract
MANIFEST := deploy/manager/deployment-dev.yml

.DEFAULT_GOAL := help
.PHONY: help build test simulate lint fmt generate check-generate images contract kind-up kind-down deploy undeploy demo record-demo demo-kind e2e chaos bench logs clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo 'the stories of e2e; TEST= takes a word of a name:'
	@sed -n 's/.*"\([a-z0-9-]*: .*\)".*/  \1/p' e2e/main.rs

# What runs in images and in simulations is optimized: there the compiler's three minutes come back.
build: ## build every program (the operator, kubectl-codis, the stand-in for Codis)
	cargo build --workspace --config profile.dev.opt-level=1 $(CARGO_FLAGS)

test: ## all tests that need neither Docker nor Kubernetes; says which tiers ran
	hack/test $(CARGO_FLAGS)

simulate: build ## play seeded disasters: SEEDS=1..60 in simulated worlds, LIVES=1..10000 in a model of the rules alone
	target/debug/codis-operator simulate --scenario model --seeds $(LIVES)
	target/debug/codis-operator simulate --seeds $(SEEDS)

lint: ## formatting and clippy, warnings are errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets $(SUITES) $(CARGO_FLAGS) -- -D warnings

fmt: ## format the code
	cargo fmt --all

generate: ## write the generated part of deploy/ (CRDs, RBAC, manifests)
	cargo run -q $(CARGO_FLAGS) --bin codis-operator -- manifests --out deploy

check-generate: ## fail when deploy/ isn't what `make generate` writes
	hack/check-generate $(CARGO_FLAGS)

images: build ## build the images; load them into the kind cluster when it is up
	hack/images

contract: ## what the operator relies on, seen on CODIS_IMAGE in containers (after: images); TEST=etcd for one coordinator
	cargo test --workspace $(CARGO_FLAGS) $(SUITES) --test contract -- --nocapture $(TEST)

kind-up: ## bring up the kind cluster (the lab's, where ../shared/lab is there)
	hack/kind-up

kind-down: ## delete the kind cluster
	hack/need kind
	kind delete cluster --name $(KIND_CLUSTER)

deploy: ## install the operator into KUBE_CONTEXT and wait for it
	hack/deploy $(MANIFEST)

undeploy: ## delete every CodisCluster of KUBE_CONTEXT, then the operator (data volumes stay)
	hack/need kubectl
	-$(KUBECTL) delete codisclusters.codis.k8s.io --all --all-namespaces --timeout=180s
	$(KUBECTL) delete -f $(MANIFEST) --ignore-not-found --timeout=120s

demo: ## a Codis cluster from Git, killed and healed, in one process: no Docker, no cluster, under a minute
	cargo build $(CARGO_FLAGS) --bin codis-operator
	$(or $(CARGO_TARGET_DIR),target)/debug/codis-operator demo $(DEMO_FLAGS)

record-demo: ## run the demo, and write docs/demo.txt and docs/demo.svg
	$(MAKE) demo DEMO_FLAGS='--record docs'

demo-kind: kind-up images deploy ## a Codis cluster on kind: up, Ready, and used
	hack/demo

e2e: ## the end-to-end suite, on KUBE_CONTEXT (after: kind-up images deploy); TEST=… for some stories
	hack/need kubectl docker
	cargo test --workspace $(CARGO_FLAGS) $(SUITES) --test e2e -- $(TEST)

chaos: ## the chaos suite, on KUBE_CONTEXT (after: kind-up images deploy)
	hack/need kubectl docker
	cargo test --workspace $(CARGO_FLAGS) $(SUITES) --test chaos -- $(TEST)

bench: ## what Git sources cost, on a real API server (no cluster needed; minutes)
	KUBEBUILDER_ASSETS=$${KUBEBUILDER_ASSETS:-$(LAB_CACHE)/bin} cargo test --workspace $(CARGO_FLAGS) $(SUITES) --test bench-gitops

logs: ## follow the operator's log
	hack/need kubectl
	$(KUBECTL) --namespace codis-system logs --selector app.kubernetes.io/name=codis-operator --prefix --follow --tail=200

clean: ## remove what was built
	cargo clean
