# Everything a person runs here. `make` alone lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
CLUSTER ?= embedded
STACK ?= test
PYTHON := .venv/bin/python

.PHONY: help up demo down test check unit cluster soak rehearse-prod bench bench-ingress bench-release bench-healing \
	golden schema lock align jobs

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

.venv/.stamp: requirements.lock
	@echo "== Python packages (requirements.lock)"
	@test -x $(PYTHON) || python3 -m venv .venv || { rm -rf .venv; apt-get update -qq; \
		apt-get install -y -qq --no-install-recommends python3-venv && python3 -m venv .venv; }
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps \
		--requirement <(sed -n '/^uv==/,/[^\\]$$/p' requirements.lock)
	@# Compiled once, also where Python writes no bytecode by itself: every run of the program starts a second earlier.
	@$(PYTHON) -m uv pip sync --quiet --compile-bytecode --require-hashes --python $(PYTHON) requirements.lock
	@touch $@

up: .venv/.stamp ## tools, cluster, images, `pulumi up` of stack test, and a table of what answers
ifeq ($(CLUSTER),existing)
	@$(PYTHON) -m devcluster deploy $(STACK) --existing
else
	@$(PYTHON) -m devcluster up
	@$(PYTHON) -m devcluster deploy $(STACK)
endif

demo: up ## the chain: `git push` to a real Gitea → webhook → build → registry → live, under load; leaves it up
	@$(PYTHON) -m devcluster demo

down: .venv/.stamp ## stop all; the machine is as before, and `make up` resumes
	@$(PYTHON) -m devcluster down

test: check unit cluster ## style, types, unit, golden, program, and the short tests on the real cluster

check: .venv/.stamp ## style, types and the direction of imports
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m basedpyright
	@.venv/bin/lint-imports --no-cache

unit: .venv/.stamp ## tests that need no cluster
	@$(PYTHON) -m pytest -m "not cluster" --numprocesses=auto

cluster: .venv/.stamp ## the short tests on a real cluster of their own (root; builds the tools first)
	@$(PYTHON) -m pytest -m "cluster and not soak" --durations=15

soak: .venv/.stamp ## all cluster tests, with the full numbers, then the benchmarks
	@PACKAGE_PLATFORM_SOAK=1 $(PYTHON) -m pytest -m cluster --durations=15
	@$(MAKE) --no-print-directory bench bench-ingress bench-release bench-healing WRITE=1

rehearse-prod: .venv/.stamp ## stack prod from nothing to serving, with a stand-in for the cloud (docs/how-to/prod.md)
	@PACKAGE_PLATFORM_SOAK=1 $(PYTHON) -m pytest -q -s tests/cluster/test_rehearsal.py

bench: .venv/.stamp ## speed beside `kubectl` in one run (SIZES=8,80,200 ROUNDS=3 PROVIDER=/path WRITE=1)
	@$(PYTHON) -m bench $(if $(SIZES),--sizes $(SIZES)) $(if $(ROUNDS),--rounds $(ROUNDS)) \
		$(if $(PROVIDER),--provider $(PROVIDER)) $(if $(WRITE),--write)

bench-ingress: .venv/.stamp ## what clients lose while the ingress fails or is replaced, beside a single proxy (WRITE=1)
	@$(PYTHON) -m bench.ingress $(if $(WRITE),--write)

bench-release: .venv/.stamp ## releases beside kubectl, Helm and Argo Rollouts (ONLY=kubectl,release SIZES=8,80,800 ROUNDS=3 WRITE=1)
	@$(PYTHON) -m bench.release $(if $(ONLY),--only $(ONLY)) $(if $(SIZES),--sizes $(SIZES)) \
		$(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(PROVIDER),--provider $(PROVIDER)) $(if $(WRITE),--write)

bench-healing: .venv/.stamp ## how long failures take to heal, beside a plain Deployment (WRITE=1)
	@$(PYTHON) -m bench.healing $(if $(WRITE),--write)

golden: .venv/.stamp ## accept the manifests as they are rendered now; read the diff
	@$(PYTHON) -m pytest -q tests/golden --snapshot-update

jobs: .venv/.stamp ## the Jenkins jobs, views and jenkins.yaml from projects/, into .dev/jobs
	@$(PYTHON) -m pipeline jobs render .dev/jobs

schema: .venv/.stamp ## write docs/schema anew
	@PYTHONPATH=. $(PYTHON) docs/schema/generate.py

lock: .venv/.stamp ## write requirements.lock anew from requirements.in
	@$(PYTHON) -m uv pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url \
		--custom-compile-command "make lock" requirements.in --output-file requirements.lock

align: .venv/.stamp ## the tools' Go modules at common versions, so that what they share is compiled once
	@$(PYTHON) -m devcluster.modules
