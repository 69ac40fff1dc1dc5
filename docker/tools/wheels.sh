#!/bin/sh
# Downloads the wheels of the lock files to docker/wheels, for one Python version, with this machine's pip settings.
# Usage: docker/tools/wheels.sh PIP_PYTHON BASE_PYTHON_VERSION [MACHINE]   (e.g. .venv/bin/python 3.13 aarch64)
set -eu
cd "$(dirname "$0")/../.."
python=$1 version=$2
abi=cp$(printf %s "$version" | tr -d .)
machine=${3:-$(uname -m)}
stamp=docker/wheels/.for-$(cat docker/*.lock | sha256sum | cut -c1-16)-$abi-$machine
[ ! -f "$stamp" ] || exit 0
echo "Downloading wheels for Python $version on $machine"
find docker/wheels -name '*.whl' -delete -o -name '.for-*' -delete
for lock in docker/build.lock docker/requirements.lock docker/requirements-sandbox.lock; do
    "$python" -m pip --disable-pip-version-check --no-input download --quiet --require-hashes --no-deps -r "$lock" -d docker/wheels \
        --only-binary=:all: --python-version "$version" --implementation cp \
        --platform "manylinux2014_$machine" --platform "manylinux_2_28_$machine" --abi "$abi" --abi abi3 --abi none || {
        echo "wheels: pip cannot download the packages of $lock; see its message above. Behind a proxy that re-signs TLS set PIP_CERT; for your own index set PIP_INDEX_URL." >&2
        exit 1
    }
done
touch "$stamp"
