# Two commands from a fresh clone: `make demo` and `make test`. Each sets up what it needs.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo quick coverage test test-slow lock lint docs infra pyod bench bench-more bench-growth bench-s3 bench-night bench-backfill bench-plan quality formats chaos nodes audit clean

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

LOCKS := requirements.lock requirements-cuda.lock requirements-dev.lock
INSTALL := pip install --quiet --disable-pip-version-check --require-hashes --requirement

.venv/.done: $(LOCKS) infra/install.py
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Anomaray needs Python 3.11 or newer: make PYTHON=python3.11 …")'
	$(PYTHON) infra/install.py .venv --tools
	touch $@

demo: .venv/.done ## two weeks of data, two detectors, one scored night, with the flags explained
	$(BIN)/python -m jobs demo --folder demo

# Some processes, one thread of torch in each; tests/scheduling.py says what runs where. Threads that
# wait let go of their core: 13% of two trainings side by side. A process that a hanging test ended is
# replaced, up to ten times. On two cores, three processes take 11.5 minutes where two take 13: half of
# the time is spent waiting for Ray and for servers. The quick tests only compute.
PYTEST := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest \
	--no-loadscope-reorder --max-worker-restart 10 --numprocesses
QUICK := --quick only --hypothesis-profile quick -q tests/models tests/cluster/lake tests/jobs/spec/test_spec.py

quick: .venv/.done ## no Ray, no S3: the lines of models/ and cluster/lake/, 70 s
	$(PYTEST) 2 $(QUICK)

coverage: .venv/.done ## the share of the lines of models/ and cluster/lake/ that `make quick` runs
	$(PYTEST) 2 $(QUICK) --cov=models --cov=cluster/lake --cov-report=term:skip-covered --cov-fail-under=90

test: .venv/.done ## everything but the slow fault tests (TESTS: options of pytest)
	$(PYTEST) 3 -m "not slow" $(TESTS)

test-slow: .venv/.done ## all tests, and more examples of each law
	$(PYTEST) 3 --hypothesis-profile slow

lint: .venv/.done ## ruff, mypy strict, import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/.done ## the pictures and pages that are made from the code
	$(BIN)/python -m tests.house draw docs/house.svg
	$(BIN)/python -m jobs.spec
	$(BIN)/python -m jobs.cli
	$(BIN)/python -m models list --write

# checkov pins a hundred packages, many against requirements.lock: it has an environment of its own.
.venv-infra/.done: infra/requirements.lock
	$(PYTHON) -m venv .venv-infra
	.venv-infra/bin/$(INSTALL) infra/requirements.lock
	touch $@

# 130 packages, 291 MB: what imports the DAG as Airflow's scheduler does.
.venv-airflow/.done: infra/airflow/requirements.lock
	$(PYTHON) -m venv .venv-airflow
	.venv-airflow/bin/$(INSTALL) infra/airflow/requirements.lock
	touch $@

# What leaves no page and asks nobody: checkov otherwise looks up its guidelines.
CHECKOV := BC_SKIP_MAPPING=TRUE .venv-infra/bin/checkov --config-file infra/checkov.yaml

infra: .venv/.done .venv-infra/.done .venv-airflow/.done ## tests of infra/, the DAG in an Airflow, checkov
	$(BIN)/python -m pytest -m "not slow" tests/infra
	rm -rf out/infra
	$(BIN)/python -m tests.infra.rendering out/infra
	$(CHECKOV) --framework kubernetes --directory out/infra
	$(CHECKOV) --framework dockerfile --directory infra/image
	$(CHECKOV) --framework terraform --directory infra/terraform

# The contenders are never installed into .venv; without their dependencies, since all of them are
# measured on the versions of requirements.lock.
.venv-bench/.done: $(LOCKS) tests/bench/requirements.lock
	$(PYTHON) infra/install.py .venv-bench --tools
	.venv-bench/bin/$(INSTALL) tests/bench/requirements.lock --no-deps
	touch $@

pyod: .venv-bench/.done ## examples/pyod_detectors: PyOD in a package of its own, its contract and a night
	PYTHONPATH=examples/pyod_detectors .venv-bench/bin/python -m pytest examples/pyod_detectors \
		tests/night/test_own_detector.py

# $(1): options of the run. The page is written whatever became of single contenders.
define benchmark
.venv-bench/bin/python -m tests.bench run --folder $(or $(FOLDER),demo/bench) $(1); status=$$?; \
	.venv-bench/bin/python -m tests.bench report --folder $(or $(FOLDER),demo/bench); exit $$status
endef

bench: .venv-bench/.done ## score W1 and W2 with all contenders, three rounds; docs/performance.md (FOLDER)
	$(call benchmark,--workload W1 --workload W2 --name bench)

# The contenders that are fast enough to be measured at every size.
FAST := --contender limit --contender limit_torch --contender anomaray --contender daft_udf

bench-more: .venv-bench/.done ## the compute-bound workload (W3) and the one of 2,000 small files (W5)
	$(call benchmark,--workload W3 --workload W5 $(FAST) --name more)

bench-growth: .venv-bench/.done ## 1, 4, 16 and 64 million rows: fixed cost, slope, peak memory
	$(call benchmark,--workload W4 $(FAST) --name growth)

bench-s3: .venv-bench/.done ## W1 from local disk and from S3 (rclone on the loopback)
	$(call benchmark,--workload W1 --s3 $(FAST) --contender ray_tuned --name s3)

bench-night: .venv/.done ## rows per second and peak memory of training and of a backfill (FOLDER, SCALE)
	$(BIN)/python -m tests.bench.night --folder $(or $(FOLDER),demo/night) --scale $(or $(SCALE),17.3)

bench-backfill: .venv/.done ## 30 days of 100,000 rows against one day of 3 million, in turn (FOLDER)
	$(BIN)/python -m tests.bench.backfill --folder $(or $(FOLDER),demo/bench)

bench-plan: .venv/.done ## the driver of 10,000 to a million splits, requests to S3; docs/scale.md
	$(BIN)/python -m tests.bench.plan
	$(BIN)/python -m tests.bench.requests
	$(BIN)/python -m tests.bench.scale

quality: .venv/.done ## the catalogue on public sets, five seeds, resumable; docs/quality.md (FOLDER, SEEDS)
	$(BIN)/python -m tests.quality run --folder $(or $(FOLDER),demo/quality) --seeds $(or $(SEEDS),5)
	$(BIN)/python -m tests.quality report --folder $(or $(FOLDER),demo/quality)

formats: .venv/.done ## every Parquet file of a folder through init, check, train and score (FOLDER)
	$(BIN)/python -m tests.formats $(FOLDER)

chaos: .venv/.done ## 200 trials of faults, counted: lost, doubled, different rows (TRIALS, SEED)
	$(BIN)/python -m tests.faults --trials $(or $(TRIALS),200) $(if $(SEED),--seed $(SEED))

nodes: .venv/.done ## nodes killed, cut off and added, three trials of each; docs/nodes.md (RUNS)
	$(BIN)/python -m tests.nodes faults --runs $(or $(RUNS),3)
	$(BIN)/python -m tests.nodes cut --runs $(or $(RUNS),3)
	$(BIN)/python -m tests.nodes cut --runs 1 --own-health-checks
	$(BIN)/python -m tests.nodes overhead --runs $(or $(RUNS),3)
	$(BIN)/python -m tests.nodes report

.venv-audit/.done: tests/security/requirements.lock
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/$(INSTALL) tests/security/requirements.lock
	touch $@

lock: .venv/.done ## write every lock file anew, with hashes, after a change of pyproject.toml
	$(BIN)/python infra/lock.py

AUDIT := $(or $(FOLDER),demo/audit)
# The last step asks pypi.org about every pinned package: where it cannot, the audit is not whole,
# and fails. OFFLINE=1 leaves it out, and says so.
audit: .venv-audit/.done ## bandit, SBOM (CycloneDX), known vulnerabilities (FOLDER, OFFLINE=1)
	.venv-audit/bin/bandit --quiet --configfile pyproject.toml --recursive models cluster jobs
	mkdir -p $(AUDIT)
	.venv-audit/bin/cyclonedx-py requirements requirements.lock --pyproject pyproject.toml \
		--output-reproducible --output-file $(AUDIT)/sbom.json
	$(if $(OFFLINE),@echo "offline: no package was looked up in the database of vulnerabilities", \
		.venv-audit/bin/pip-audit --requirement requirements.lock --no-deps --disable-pip --strict)

clean: ## remove the environments and the demo
	rm -rf .venv .venv-* demo
