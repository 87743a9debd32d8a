# Two commands are enough: make run, make test. The rest is for those who work on Quire.
SHELL := /bin/bash
# sudo and cron forget where Go lives.
export PATH := $(PATH):/usr/local/go/bin
step := scripts/step
# Root's stories make accounts: on a machine of their own.
apart := $(if $(filter 0,$(shell id -u)),scripts/in-namespace)

.DEFAULT_GOAL := help
.PHONY: help run build test lint bench package soak screenshots clean

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

run: ## build what changed and start everything on this machine (UP="--host NAME" and the like are passed on)
	@$(step) "Tools and Debian packages" scripts/setup run
	@$(step) "Build" go run ./build
	@exec bin/quire up $(UP)

build: ## the binary alone: bin/quire
	@$(step) "Tools and Debian packages" scripts/setup run
	@$(step) "Build" go run ./build

test: ## everything: lint, unit and story tests with the race detector, tests that need root, browsers
	@scripts/test

lint: ## format, vet, staticcheck, type check of the pages' scripts, our own rules
	@$(step) "Tools and Debian packages" scripts/setup run
	@$(step) "Build" go run ./build
	@scripts/lint

bench: ## every benchmark against its peer in the same run, one JSON line per figure (one of them: B=NAME)
	@$(step) "Tools and Debian packages" scripts/setup test >&2
	@$(step) "Build" go run ./build >&2
	@go run ./bench $(B)

package: ## deb, rpm and a tar for machines without internet, signed, in dist/ (scripts/package says how to sign and what more it can hold)
	@$(step) "Tools and Debian packages" scripts/setup run
	@scripts/package

soak: ## races and fuzzing at full length (FUZZ=5m per target; takes hours)
	@$(step) "Tools and Debian packages" scripts/setup test
	@$(step) "Build" go run ./build
	@scripts/soak

screenshots: ## take the pictures of docs/images again
	@$(step) "Tools and Debian packages" scripts/setup test
	@$(step) "Build" go run ./build
	@PICTURES=docs/images ONLY=first $(apart) scripts/browser

clean: ## remove what was built
	rm -rf bin dist node_modules test-results
	find web/dist apps/lab/dist -mindepth 1 -not -name placeholder.txt -delete
