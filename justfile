# What is checked, under the names that CI uses. `just` lists it; `just check` is all that a change must pass.

set shell := ["bash", "-euo", "pipefail", "-c"]

[private]
default:
    @just --list --unsorted

# everything that a change must pass: about twelve minutes on two cores
check: lint types test web wheel

# style, formatting, and the order of the rooms
lint:
    ruff check .
    ruff format --check .
    lint-imports

# mypy --strict on src
types:
    mypy

# the tests, without the slow ones; arguments go to pytest
test *arguments:
    python -m pytest {{ arguments }}

# the slow tests only
slow *arguments:
    python -m pytest -m slow {{ arguments }}

# the tests, and which lines they run
coverage:
    python -m pytest --cov=picosam2 --cov-report=term:skip-covered --cov-report=xml

# the oldest allowed releases of what predicting needs, or of extras by their names (needs uv)
lowest *arguments:
    python tools/release/lowest.py {{ arguments }}

# the documentation, into docs/_build/html
docs:
    python -m sphinx -W --keep-going -q docs docs/_build/html

# lint and unit tests of the web packages
web:
    cd web && npm ci --no-audit --no-fund && npm run lint && npm test

# build the web page into the package, where `picosam2 demo` finds it
page:
    cd web && npm ci --no-audit --no-fund && npm run build

# the page in a real browser (needs `just page`; CHROMIUM names the browser)
e2e:
    cd web && npm run e2e

# build wheel and sdist, check them, install the wheel in an empty environment and use it
wheel *arguments:
    tools/release/check_wheel.sh {{ arguments }}

# pin the development environment anew (needs uv)
lock:
    uv pip compile --quiet --universal --python-version 3.11 --extra dev --no-annotate --no-emit-index-url \
        --custom-compile-command 'just lock' pyproject.toml --output-file constraints.txt
