#!/usr/bin/env bash
# Builds the wheel and the sdist into dist/, checks their metadata, installs the wheel into an empty
# environment and makes a mask with it. `--with-page` also demands that the web page is inside.
set -euo pipefail
cd "$(dirname "$0")/../.."

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

rm -rf dist
python -m build --sdist --wheel --outdir dist . >"$folder/build.txt" || { cat "$folder/build.txt"; exit 1; }
python -m twine check --strict dist/*

python -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet dist/*.whl
"$folder/venv/bin/python" -m pip check

picosam2() { (cd "$folder" && "$folder/venv/bin/picosam2" "$@"); }
picosam2 version
picosam2 segment sample --point 353,349
test -s "$folder/sample-overlay.png"
(cd "$folder" && venv/bin/python -c '
import picosam2
import sys
mask = picosam2.segment(picosam2.sample(), points=[(353, 349)])[0]
assert mask.mask[349, 353] and mask.area > 1000, mask
assert not {"torch", "cv2", "onnx"} & set(sys.modules)
')

if [ "${1:-}" = --with-page ]; then
    python -m zipfile --list dist/*.whl | grep -q picosam2/assets/web/index.html ||
        { echo "the wheel lacks the web page: run just page first"; exit 1; }
fi
echo "dist/ is fit to release: $(du -h dist/*.whl | cut -f1) wheel"
