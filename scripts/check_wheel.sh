#!/usr/bin/env bash
# Build the wheel into dist, check its contents, and run it from a read-only installation in an empty environment.
# PYTHON names the Python that is used, python3 by default.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"
root="$PWD"
unset PYTHONPATH PYTHONHOME # the checkout must not stand in for the wheel

work="$(mktemp -d)"
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT

echo "wheel: build"
rm -f dist/lvqa-*.whl
"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip wheel --quiet --no-deps --wheel-dir dist .
wheel="$(echo "$root"/dist/lvqa-*.whl)"

echo "wheel: contents of $(basename "$wheel")"
"$python" - "$wheel" <<'PYTHON'
import sys
import zipfile
from pathlib import Path

MAX_MIB = 16  # the embedded model's weights have 10
wheel = Path(sys.argv[1])
names = zipfile.ZipFile(wheel).namelist()
metadata = "-".join(wheel.name.split("-")[:2]) + ".dist-info"
required = [
    "lvqa/__init__.py",
    "lvqa/py.typed",
    *(f"lvqa/synthetic/weights/{name}" for name in ("config.json", "model.safetensors", "tokenizer.json")),
    *(f"lvqa/web/{name}" for name in ("static/main.js", "static/style.css", "templates/page.html.jinja")),
    *(f"{metadata}/{name}" for name in ("METADATA", "entry_points.txt", "licenses/LICENSE")),
]
lacking = [name for name in required if name not in names]
# Tests, scripts and notebooks lie outside of lvqa/. Training is not part of the package, and neither are its records.
strange = [name for name in names if not name.startswith(("lvqa/", f"{metadata}/")) or "training" in name]
size = wheel.stat().st_size / (1 << 20)
if lacking or strange or size > MAX_MIB:
    sys.exit(f"wheel: it lacks {lacking}; it must not have {strange}; {size:.1f} MiB, allowed: {MAX_MIB}")
print(f"wheel: {len(names)} files, {size:.1f} MiB")
PYTHON

echo "wheel: install into an empty environment"
"$work/venv/bin/python" -m pip install --quiet --constraint constraints.txt torch==2.13.0
"$work/venv/bin/python" -m pip install --quiet --constraint constraints.txt "$wheel"
"$work/venv/bin/python" -m pip check

packages="$("$work/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
chmod -R a-w "$packages"

# Root may write whatever the permissions are. So each file's size and time of change are compared as well.
list_files() {
    "$work/venv/bin/python" - "$packages" <<'PYTHON'
import sys
from pathlib import Path

for path in sorted(Path(sys.argv[1]).rglob("*")):
    status = path.lstat()
    print(path, status.st_size, status.st_mtime_ns)
PYTHON
}
list_files >"$work/before"

mkdir "$work/home" "$work/store" "$work/elsewhere"
cd "$work/elsewhere"
export HOME="$work/home" LVQA_HOME="$work/store" HF_HUB_OFFLINE=1 PYTHONDONTWRITEBYTECODE=1 PYTHONNOUSERSITE=1
unset XDG_CACHE_HOME XDG_CONFIG_HOME
lvqa="$work/venv/bin/lvqa"

echo "wheel: run"
"$work/venv/bin/python" - "$packages" <<'PYTHON'
import sys
from importlib.metadata import version

import lvqa

assert lvqa.__file__.startswith(sys.argv[1]), f"{lvqa.__file__} is not the wheel's"
assert version("lvqa") == lvqa.__version__, f"{version('lvqa')} is not {lvqa.__version__}"
PYTHON
"$lvqa" --version
"$lvqa" --help >/dev/null
"$lvqa" doctor
"$lvqa" demo --folder "$work/demo" --quiet | tee "$work/demo.txt"
test -s "$work/demo/demo.png"
grep -q "which uniform frames miss" "$work/demo.txt" # by default the demo has such a question

list_files >"$work/after"
if ! diff "$work/before" "$work/after"; then
    echo "wheel: lvqa changed its own installation" >&2
    exit 1
fi
echo "wheel: ok, $wheel"
