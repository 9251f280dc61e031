#!/usr/bin/env bash
# POT 0.9.7.post1: two equal distributions on a line are apart where their arrays are float32 and of different lengths.
#
# Guess: 10,000 numbers and the same numbers three times over are one distribution, so their distance is 0 in any dtype, to rounding of the numbers.
# Seen: the squared distance is 6e-11 in float64 and 3.0 in float32, although all numbers are whole and exact: the steps of the two
# quantile functions are sums of weights in float32, they no longer fall together, and single points are matched with the next.
# Exits 1 if that has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check POT==0.9.7.post1 numpy==2.4.6 scipy==1.17.1
cat > "$folder/look.py" <<'PYTHON'
import sys

import numpy as np
import ot

found = {}
for dtype in (np.float64, np.float32):
    x = np.arange(10_000, dtype=dtype)
    found[dtype.__name__] = float(ot.wasserstein_1d(x, np.tile(x, 3), p=2))
print("POT", ot.__version__)
for name, squared in found.items():
    print(f"{name}: squared distance of equal distributions {squared:.2g}")
sys.exit(not (abs(found["float64"]) < 1e-6 and found["float32"] > 1))
PYTHON
"$folder/venv/bin/python" "$folder/look.py"
