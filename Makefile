# make book: run every page on the shipped model and build the site.
# make test: check the code, the pages and the site.
# make measure: measure the shipped models again and say which pages that changes.
# make portable: the pages and the check of the measurements on simulated older processors.
# Each sets up .venv first when that is missing or older than the pins.
.PHONY: book test measure portable clean
SHELL := bash
# What runs beside the other tests, on the second core.
BESIDE := tests/book tests/bench

# A foreign environment must not leak in; under MPLBACKEND the pages would draw no figures, and
# RARETOK_PAGES names the folder whose pages the ledger reads.
unexport VIRTUAL_ENV PYTHONHOME PYTHONPATH MPLBACKEND RARETOK_PAGES
# Both commands use what ships, so neither asks the Hub.
export HF_HUB_OFFLINE := 1

CHROMIUM := $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
WITH_BROWSER := $(if $(CHROMIUM)$(RARETOK_REQUIRE_BROWSER),yes)

book: .venv/installed
	@echo "Running the pages and building the site."
	@.venv/bin/raretok book

test: .venv/installed
	@echo "Checking the code style."
	@.venv/bin/ruff check --quiet .
	@echo "Running the tests; beside them every page again against its stored numbers and figures, a sample"
	@echo "of what the pages read measured again, and some of the tests."
	@$(if $(WITH_BROWSER),,echo "No Chromium found: the browser test is left out.")
	@mkdir -p build; export OMP_NUM_THREADS=1; \
	( .venv/bin/python -m pytest -p no:cacheprovider --nbval --nbval-current-env book; pages=$$?; \
	.venv/bin/raretok measure --check | grep -v "^agrees"; check=$${PIPESTATUS[0]}; \
	.venv/bin/python -m pytest $(if $(WITH_BROWSER),,-m "not browser") $(BESIDE); \
	exit $$(($$? + pages + check)) ) >build/beside.log 2>&1 & beside=$$!; \
	.venv/bin/python -m pytest tests $(addprefix --ignore ,$(BESIDE)); tests=$$?; \
	wait $$beside; beside=$$?; echo "Beside them:"; cat build/beside.log; \
	exit $$((tests + beside))

measure: .venv/installed
	@.venv/bin/raretok measure --all

portable: .venv/installed
	@PYTHONPATH=. .venv/bin/python tests/portable.py

clean:
	@echo "Deleting the built site and the caches (.venv and runs/ stay)."
	@rm -rf _build build .pytest_cache .ruff_cache raretok.egg-info
	@find raretok tests notebooks -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/installed: requirements.lock pyproject.toml
	@python=$$(for p in python3.11 python3 python; do $$p -c 'import ensurepip, sys, venv; \
	    sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && echo $$p && break; done); \
	test -n "$$python" || { echo "raretok needs Python 3.11 with its venv module:" \
	    "none of python3.11, python3, python is that. Install it, then run make again." >&2; exit 1; }; \
	echo "Making .venv with $$python."; $$python -m venv .venv
	@echo "Installing the pinned packages (a few minutes)."
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	@echo "Installing raretok itself."
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
