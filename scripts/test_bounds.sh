#!/usr/bin/env bash
# Run the quick tests with the oldest releases that pyproject.toml allows, and then with the newest ones.
# Each set is installed into an environment of its own, under a temporary folder. torch stays at the pinned release.
# PYTHON names the Python that is used, python3 by default. Arguments go to pytest, instead of the choice of quick tests.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"
torch="$(grep '^torch==' constraints.txt)"
unset PYTHONPATH PYTHONHOME
export OMP_NUM_THREADS=1
[ $# -gt 0 ] || set -- -m "not slow and not gpu and not browser"

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/tools"
"$work/tools/bin/python" -m pip install --quiet uv
uv="$work/tools/bin/uv"

for resolution in lowest-direct highest; do
    echo "bounds: $resolution"
    bin="$work/$resolution/bin"
    "$uv" venv --quiet --python "$python" "$work/$resolution"
    "$uv" pip install --quiet --python "$bin/python" --resolution "$resolution" --editable '.[dev]' "$torch"
    "$uv" pip list --python "$bin/python" 2>/dev/null | grep -E '^(av|faiss-cpu|numpy|ray|torch|transformers) '
    "$bin/python" -m pytest --quiet -p no:cacheprovider "$@"
    rm -rf "${work:?}/$resolution"
done
echo "bounds: ok"
