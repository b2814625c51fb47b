#!/bin/sh
# Writes the lock files anew from pyproject.toml: hashes, every platform, no index address.
#   tools/lock.sh              keep what is locked, add what is missing
#   tools/lock.sh --upgrade    take the newest of everything
set -eu
cd "$(dirname "$0")/.."
common="--quiet --python-version 3.11 --universal --generate-hashes --no-emit-index-url --no-header --extra local --group build"
.venv/bin/uv pip compile $common "$@" pyproject.toml -o requirements/run.txt
# What only `make fuzz`, `make bench` and `make bench-peers` install, the latter two in environments of their own.
for group in fuzz bench peers; do
  .venv/bin/uv pip compile --quiet --python-version 3.11 --universal --generate-hashes --no-emit-index-url --no-header \
    --group $group "$@" -o requirements/$group.txt
done
.venv/bin/uv pip compile $common --group dev "$@" -c requirements/run.txt pyproject.toml -o requirements/dev.txt
