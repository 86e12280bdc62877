# Everything runs in .venv, from the locked files in requirements/.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# Airflow pins hundreds of packages: it has an environment of its own.
AIRFLOW := .venv-airflow/.installed
# Where this is set every process of a test run would compile the tests and saker again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo check test test-airflow stack-test lint types format hooks actionlint docs generated pictures onnxmltools-page links clean lock \
  sanitize fuzz coverage test-aarch64 gate chaos

demo: $(STAMP)
	$(BIN)/saker demo

# The whole suite, or a part of it: `make test T=tests/engine/records`. Tests wait for servers half of their time, so there are more
# processes than cores; those of one file stay together, and all of them share one broker. COVERAGE=1 prints the total and the
# modules with less than 90 % of their branches covered; it takes twice as long, since every process of a test is traced.
T ?= tests
PROCESSES ?= 4

test: $(STAMP) $(if $(filter tests,$(T)),$(AIRFLOW))
	$(BIN)/pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder $(if $(COVERAGE),--cov --cov-report=) $(T)
	@if [ -n "$(COVERAGE)" ]; then $(BIN)/coverage report | awk 'NR < 3 || $$NF + 0 < 90 || /^TOTAL/'; fi

# What to run before each commit: checks, and the tests that need no server.
check: lint
	HYPOTHESIS_PROFILE=quick $(BIN)/pytest -q -n 3 -m "not kafka and not mlflow and not airflow and not slow" $(T)

test-airflow: $(STAMP) $(AIRFLOW)
	$(BIN)/pytest tests/dags/live_airflow.py

# Prometheus and Alertmanager at a pool under load, each alert by its cause: six minutes.
stack-test: $(STAMP)
	$(BIN)/pytest tests/deploy/live_monitoring.py

# The long breakages, with a ledger of each, and those of three brokers: half an hour.
chaos: $(STAMP)
	$(BIN)/pytest -v -s tests/chaos/live_chaos.py tests/chaos/live_cluster.py

$(AIRFLOW): $(STAMP) requirements/airflow.txt
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-airflow
	$(BIN)/uv pip install --quiet --compile-bytecode --python .venv-airflow/bin/python --require-hashes -r requirements/airflow.txt
	touch $@

# This tree beside an older one, in turns: fails if it is slower beyond the noise, or gives other scores.
BASE ?= HEAD~1

gate: $(STAMP)
	@if git cat-file -e $(BASE):bench/gate/subject.py 2>/dev/null || git cat-file -e $(BASE):bench/subject.py 2>/dev/null; then $(BIN)/saker bench gate --base $(BASE); \
	else echo "gate: skipped, $(BASE) is not here or has no subject.py to compare with"; fi

# All hooks of .pre-commit-config.yaml.
lint: $(STAMP)
	$(BIN)/prek run --all-files --quiet

hooks: $(STAMP)
	$(BIN)/prek install

format: $(STAMP)
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format --quiet .
	git ls-files '*.c' '*.h' | xargs $(BIN)/clang-format -i

# mypy and mkdocstrings do not know where the editable installation maps `saker.engine`, so they get links in that shape.
PACKAGES := bench commands deploy engine export training

links:
	@mkdir -p build/typing/saker
	@for each in $(PACKAGES) $(wildcard saker/*); do ln -sfn $(CURDIR)/$$each build/typing/saker/$${each##*/}; done

types: $(STAMP) links
	$(BIN)/mypy

actionlint:
	@if command -v go > /dev/null; then go run github.com/rhysd/actionlint/cmd/actionlint@v1.7.7; \
	else echo "actionlint: skipped, it is built by go, which is not here"; fi

SITE ?= site

docs: $(STAMP) links
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir $(SITE)

# Files in the repository that are generated from the code: dashboards, links of the alerts, reference pages, the benchmark page.
RUNBOOK ?= docs/operate/runbook.md

generated: $(STAMP)
	$(BIN)/python -m saker.deploy.grafana.build
	$(BIN)/python -m saker.deploy.runbook_links $(RUNBOOK)
	$(BIN)/python -m saker.commands.reference_pages
	$(BIN)/python -m saker.bench.page

# The pictures of a terminal in the README, from a run of the demo.
pictures: $(STAMP)
	$(BIN)/python -m saker.bench.recordings

# What onnxmltools gets wrong, measured with the versions installed here: two minutes.
onnxmltools-page: $(STAMP)
	$(BIN)/python -m saker.export.selfcheck.converters > docs/explanation/onnxmltools.md

KERNELS := setup.py engine/kernels/build.py $(shell find engine/kernels/native -type f)

# The kernels with the address and undefined behaviour sanitizers built in, which end the process at the first fault. Zig has
# no address sanitizer: this needs a gcc, or a clang with its runtime libraries.
SANITIZED := build/sanitized/_native.abi3.so
UNDER_SANITIZER := LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
  ASAN_OPTIONS=detect_leaks=0:quarantine_size_mb=64 UBSAN_OPTIONS=halt_on_error=1 # the interpreter itself leaks
# Not those of MLflow and S3, whose servers would run under it too.
UNIT_TESTS := tests/engine tests/export tests/training tests/bench tests/commands -m "not mlflow"
FUZZ_SECONDS ?= 600
FUZZ_RECORDS ?= 20000000

# Ends with how much of each C file the tests ran.
sanitize: $(SANITIZED)
	find build/kernels-*-sanitize -name '*.gcda' -delete
	$(UNDER_SANITIZER) $(BIN)/python -m pytest -p tests.support.sanitized -n 2 --dist loadfile $(UNIT_TESTS)
	$(BIN)/gcovr --root engine/kernels/native --txt-metric branch --merge-mode-functions=separate \
	  --gcov-ignore-parse-errors=negative_hits.warn_once_per_file build/kernels-*-sanitize
	$(UNDER_SANITIZER) $(BIN)/python -m tests.support.sanitized tests.engine.records.fuzz --seconds 20
	$(UNDER_SANITIZER) $(BIN)/python -m tests.support.sanitized tests.engine.records.fuzz_binary --seconds 20 --seed 1000000 # a random seed is for `make fuzz`
	$(UNDER_SANITIZER) $(BIN)/python -m tests.support.sanitized tests.engine.records.fuzz_variants --records 500000 --seed 1000000
	$(UNDER_SANITIZER) $(BIN)/python -m tests.support.sanitized tests.engine.model.fuzz --seconds 20

test-aarch64: $(STAMP)
	tests/aarch64.sh

fuzz: $(SANITIZED)
	$(UNDER_SANITIZER) $(BIN)/python -m tests.support.sanitized tests.engine.records.fuzz --seconds $(FUZZ_SECONDS)
	$(UNDER_SANITIZER) $(BIN)/python -m tests.support.sanitized tests.engine.records.fuzz_binary --seconds $(FUZZ_SECONDS)
	$(UNDER_SANITIZER) $(BIN)/python -m tests.support.sanitized tests.engine.records.fuzz_variants --records $(FUZZ_RECORDS)
	$(UNDER_SANITIZER) $(BIN)/python -m tests.support.sanitized tests.engine.model.fuzz --seconds $(FUZZ_SECONDS)

$(SANITIZED): $(STAMP) $(KERNELS)
	CC=gcc $(BIN)/python engine/kernels/build.py --sanitize -o $@

# Compiled to bytecode at once: where PYTHONDONTWRITEBYTECODE is set every process would compile mlflow again, for seconds.
$(STAMP): requirements/bootstrap.txt requirements/dev.txt pyproject.toml $(KERNELS)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements/dev.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	$(BIN)/python -m compileall -q $(PACKAGES) saker
	touch $@

# After a change of the dependencies in pyproject.toml; commit what it writes.
lock: $(STAMP)
	for f in "bootstrap requirements/bootstrap.in" "serve pyproject.toml --extra registry" \
	  "life pyproject.toml --extra train --extra s3" "dev pyproject.toml --all-extras" \
	  "airflow requirements/airflow.in"; do \
	  set -- $$f; out=$$1; shift; \
	  $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	    --no-annotate "$$@" -o requirements/$$out.txt || exit 1; \
	done

clean:
	rm -rf .venv .venv-airflow build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache mlruns mlartifacts mlflow.db demo-report site
