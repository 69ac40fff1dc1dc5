#!/bin/sh
# Writes the lock files of the image from setup.cfg: every version pinned, every file hashed.
# Usage: docker/tools/lock.sh PYTHON   (a Python with venv; uv is put into build/lock)
set -eu
cd "$(dirname "$0")/../.."
python=${1:-python3}
tool=build/lock/bin/uv
[ -x "$tool" ] || { "$python" -m venv build/lock && build/lock/bin/python -m pip --disable-pip-version-check install --quiet uv; }

# The oldest Python that is supported decides; --universal keeps the markers, so one lock serves all of them.
lock() { "$tool" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links "$@"; }
# shellcheck disable=SC2016
note() { printf '# %s Made by `make lock`; do not edit.\n' "$1" | cat - build/lock/out >"$2"; echo "wrote $2"; }

printf 'pip\nsetuptools\n' | lock - -o build/lock/out >/dev/null
note "What installs the image's packages, and is not in the image." docker/build.lock
# sspilib is pyspnego's for Windows.
lock setup.cfg --extra agent --extra windows-auth --no-emit-package sspilib -o build/lock/out >/dev/null
note "What the agent's image holds." docker/requirements.lock
lock setup.cfg --extra agent --extra sandbox -c docker/requirements.lock -o build/lock/out >/dev/null
note "What the sandbox's image holds." docker/requirements-sandbox.lock
