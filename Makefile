# One line for each thing a developer does; `make help` lists them. Everything missing is installed on the way.
SHELL := /bin/bash
PYTHON_OF_VENV := .venv/bin/python
SCRIPTS := infra/scripts
TESTED_WITH := rabbitmq-server amqp-tools postgresql redis-server prometheus prometheus-alertmanager libfaketime chromium ffmpeg
# Files are dealt to three processes: most tests wait for something. A file stays together, for its fixtures are dear.
# They are dealt in their order, long acceptance tests first and unit tests last: all three end at about the same time.
DEALT := -n 3 --dist loadfile --no-loadscope-reorder
TEST := $(PYTHON_OF_VENV) -m pytest --ignore=tests/bench --ignore=tests/containers $(DEALT)
EXTRAS_OF_IMAGE := --extra worker --extra postgres --extra redis --extra services --extra otel

.DEFAULT_GOAL := help
.PHONY: help demo up test check format bench test-matrix image test-containers venv pins system clean

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: venv system ## Run 2,000 real jobs with honest trouble, and account for each
	@$(PYTHON_OF_VENV) -m services.demo

up: venv system ## Keep the demo's system running until Ctrl-C, with the management UI and alerts
	@$(SCRIPTS)/install-system prometheus prometheus-alertmanager || echo "going on without alerts"
	@$(PYTHON_OF_VENV) -m services.demo --up

test: venv ## Test everything on a private RabbitMQ, PostgreSQL and Redis of this machine
	@$(SCRIPTS)/install-system $(TESTED_WITH)
	$(TEST) tests

test-matrix: venv ## Test everything on RabbitMQ 3.10, 4.0 and 4.3 (root, Debian)
	@$(SCRIPTS)/install-system $(TESTED_WITH) nodejs npm
	@$(SCRIPTS)/chroot-broker trixie
	@$(SCRIPTS)/chroot-broker sid
	PENSTOCK_TEST_BROKERS=3.10,4.0,4.3 $(TEST) -m "matrix or not matrix" tests

# To check the catalogue, every worker is built; the media service is none without ffmpeg.
check: venv ## Lint, formats, types, layers, schedules, catalogue
	@$(SCRIPTS)/install-system ffmpeg
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo
	PENSTOCK_STORE_URL=sqlite:///store.db .venv/bin/penstock schedule check services/scheduler/schedules.yaml
	PENSTOCK_STORE_URL=sqlite:///store.db .venv/bin/python -m services.reports check
	PENSTOCK_STORE_URL=sqlite:///store.db .venv/bin/penstock catalogue check --file rabbitmq/topology.audit.yaml

format: venv ## Put the code into the project's format
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

bench: venv ## Measure Penstock beside bare drivers and other job systems (half an hour)
	@$(SCRIPTS)/install-system rabbitmq-server postgresql redis-server
	@if [ "$$(id -u)" -eq 0 ]; then $(SCRIPTS)/install-system gcc librabbitmq-dev && $(SCRIPTS)/chroot-broker sid; fi
	$(PYTHON_OF_VENV) -m tests.bench

image: ## Build the images of all services, penstock:latest and penstock-media:latest, with Docker
	@$(SCRIPTS)/image

test-containers: venv ## Test image and docker-compose.yml, scaled, crashed and restarted under load (root, Debian)
	@$(SCRIPTS)/install-system docker.io docker-compose debootstrap
	$(PYTHON_OF_VENV) -m pytest -s -m matrix tests/containers

venv: .venv/.built ## Build .venv from the pins in requirements/

.venv/.built: requirements/dev.txt pyproject.toml
	@$(SCRIPTS)/make-venv

pins: venv ## Pin the newest dependencies that pyproject.toml allows
	@for name in producer worker services dev; do \
		case $$name in producer) extras= ;; services) extras="$(EXTRAS_OF_IMAGE)" ;; *) extras="--extra $$name" ;; esac; \
		.venv/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
			--no-annotate $$extras --output-file requirements/$$name.txt pyproject.toml || exit; \
	done
	@! grep -nE '://|^-' requirements/*.txt || { echo "pins must name no host"; exit 1; }

# The demo uses the broker at RABBITMQ_URL when there is one, and does without videos where ffmpeg cannot be had.
system:
	@$(if $(RABBITMQ_URL)$(RABBITMQ_URL_FILE),,$(SCRIPTS)/install-system rabbitmq-server)
	@$(SCRIPTS)/install-system ffmpeg || echo "going on without pictures and videos"

clean: ## Remove .venv, caches and the development broker's data
	@if [ -x .venv/bin/penstock ]; then .venv/bin/penstock broker stop; fi
	rm -rf .venv .penstock .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
