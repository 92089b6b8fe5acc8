# mtbert: `make help` lists what there is. Set-up is done by itself, once, into .venv.

PYTHON ?= python3
# What pip is asked for; e.g. TORCH=torch==2.12.0. Not in the lock: its build differs with the machine's GPU.
TORCH ?= torch==2.13.0

SCALE ?=
SEEDS ?=
EXPERIMENTS ?=
JOBS ?=
ARGS ?=
UPGRADE ?=

BIN := .venv/bin
STAMP := .venv/.mtbert-setup
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install -qq --root-user-action ignore

.DEFAULT_GOAL := help
.PHONY: help setup reproduce-table test check audit format smoke bench tensorboard table figures report data clean lock

help: ## list these targets
	@echo "usage: make TARGET [VARIABLE=value ...]"
	@echo
	@grep -hE '^[a-z-]+:.*## ' Makefile | awk -F ':.*## ' '{printf "  %-16s %s\n", $$1, $$2}'
	@echo
	@echo "variables:"
	@echo "  SCALE=sample|quick|paper  SEEDS=0,1,2  EXPERIMENTS=00_baseline,final  JOBS=1   of reproduce-table"
	@echo "  ARGS='...'                of reproduce-table, test, bench, table, figures, report, data: passed on"
	@echo "  PYTHON=python3.12         the Python (3.11 or newer) that .venv is made with"
	@echo "  TORCH=torch==2.13.0       the PyTorch that is installed"

setup: $(STAMP) ## make .venv with pinned, hash-checked packages (once; again when the pins change)

# The lock comes before torch, so that torch finds its own small dependencies in place, at their pinned versions.
# antlr4-python3-runtime, which Hydra needs, has no wheel: setuptools must be there before it can be built.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "mtbert needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Name another: make setup PYTHON=python3.12" >&2; \
		exit 1; }
	@echo "Setting up .venv with $$($(PYTHON) --version): a few minutes, once."
	@$(PYTHON) -m venv .venv
	@echo "  1/4 build tools"
	@sed -n -E '/^(setuptools|wheel)==/,/[^\\]$$/p' requirements.lock > .venv/build-tools.lock
	@$(INSTALL) --require-hashes --no-deps -r .venv/build-tools.lock
	@echo "  2/4 $$(grep -c '^[a-z]' requirements.lock) pinned packages (requirements.lock)"
	@$(INSTALL) --require-hashes --no-deps --no-build-isolation --use-pep517 -r requirements.lock
	@echo "  3/4 $(TORCH)"
	@$(INSTALL) $(TORCH)
	@echo "  4/4 mtbert itself"
	@$(INSTALL) --no-deps --no-build-isolation -e .
	@touch $(STAMP)
	@echo "Ready: .venv/bin/mtbert"

reproduce-table: setup ## the paper's table: every experiment run (what is done is kept), then the table
	@$(BIN)/mtbert reproduce $(if $(SCALE),--scale '$(SCALE)') $(if $(SEEDS),--seeds '$(SEEDS)') \
		$(if $(EXPERIMENTS),--experiments '$(EXPERIMENTS)') $(if $(JOBS),--jobs '$(JOBS)') $(ARGS)

test: setup ## the tests, one process a core (ARGS='-k packing')
	@$(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

check: setup ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

# A package that the database does not answer for passes pip-audit without a word.
audit: setup ## known vulnerabilities of the pinned packages (pip-audit; needs its database)
	@mkdir -p build
	@{ sed -n -E 's/^([a-z0-9][^ ]*==[^ ]*).*/\1/p' requirements.lock; echo '$(TORCH)'; } > build/audit.in
	@$(BIN)/pip-audit --progress-spinner off --disable-pip --no-deps -r build/audit.in > build/audit.log 2>&1; status=$$?; \
		all=$$(wc -l < build/audit.in); silent=$$(grep -c 'could not be audited' build/audit.log); \
		if grep -q '^Traceback' build/audit.log || [ "$$silent" -ge "$$all" ]; then \
			echo "audit: nothing was audited: the database of vulnerabilities is not reachable from here" >&2; exit 2; \
		fi; \
		grep -v 'could not be audited' build/audit.log; \
		echo "audit: $$((all - silent)) of $$all packages audited"; exit $$status

format: setup ## let ruff put the code in order
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

smoke: setup ## one tiny run from end to end: a minute
	@$(BIN)/mtbert train experiment=smoke/tiny

bench: setup ## our speed beside that of transformers, on this machine (ARGS='--encoder base-shape --only step')
	@$(BIN)/mtbert bench $(ARGS)

tensorboard: setup ## curves of all runs in the browser
	@$(BIN)/tensorboard --logdir "$${MTBERT_RUNS:-runs}"

table: setup ## print the table of the runs there are (ARGS='--format markdown')
	@$(BIN)/mtbert table $(ARGS)

figures: setup ## the paper's figures from the runs there are, PNG and SVG, into ./figures
	@$(BIN)/mtbert figures $(ARGS)

report: setup ## one HTML page of all that was run: table, figures, errors (report.html)
	@$(BIN)/mtbert report $(ARGS)

data: setup ## download the five datasets into ./data (or $MTBERT_DATA)
	@$(BIN)/mtbert data $(ARGS)

clean: ## remove caches and build output; never runs/ or data/
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find src tests -type d -name __pycache__ -prune -exec rm -rf {} +

# torch's build, with all that comes along with a CUDA one, is the machine's own affair.
UNLOCKED := torch|triton|nvidia-[^=]*|cuda-[^=]*|pip

lock: setup ## write requirements.lock anew from pyproject.toml (UPGRADE=1: newest versions)
	@mkdir -p build && cp requirements.lock build/compiled.lock
	@printf '%s\n' '$(TORCH)' setuptools wheel > build/lock.in
	@$(BIN)/pip-compile --quiet --no-config $(if $(UPGRADE),--upgrade) --generate-hashes --allow-unsafe --strip-extras \
		--no-header --no-annotate --no-emit-options --extra dev --extra minilm --extra export --extra search --extra slurm --extra joblib --extra bench --extra mtl \
		--output-file build/compiled.lock pyproject.toml build/lock.in 2> build/lock.log \
		|| { cat build/lock.log >&2; exit 1; }
	@{ echo "# Every package but torch, with the hashes of its files. Written by: make lock"; \
		awk '/^[a-z0-9]/ { kept = $$0 !~ /^($(UNLOCKED))==/ } kept && NF && !/^#/' build/compiled.lock; } > build/requirements.lock
	@mv build/requirements.lock requirements.lock
	@echo "requirements.lock: $$(grep -c '^[a-z]' requirements.lock) packages"
