#!/usr/bin/env bash
# scikit-learn 1.9.1: exp(BayesianGaussianMixture.score_samples) is not a density.
#
# Guess: score_samples is the log density of the fitted mixture, as it is documented and as GaussianMixture has it; its exp integrates to 1.
# Seen: to 1.000 for GaussianMixture, to 0.910 for BayesianGaussianMixture of two components and 30 points: it takes expectations of
# log weights and log determinants over the posterior. The mixture of weights_, means_ and covariances_, from which sample() draws, is another.
# Exits 1 if that has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check scikit-learn==1.9.1 numpy==2.4.6 scipy==1.17.1
cat > "$folder/look.py" <<'PYTHON'
import sys

import numpy as np
import sklearn
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture

points = np.random.default_rng(0).normal(size=(30, 1)) + 4 * (np.arange(30)[:, None] % 2)
grid = np.linspace(-40, 50, 90_001)[:, None]
mass = {}
for family in (GaussianMixture, BayesianGaussianMixture):
    fitted = family(n_components=2, random_state=0).fit(points)
    mass[family.__name__] = float(np.exp(fitted.score_samples(grid)).sum() * 0.001)
print("scikit-learn", sklearn.__version__)
for name, value in mass.items():
    print(f"{name}: exp(score_samples) integrates to {value:.3f}")
sys.exit(not (abs(mass["GaussianMixture"] - 1) < 1e-3 and abs(mass["BayesianGaussianMixture"] - 0.910) < 5e-3))
PYTHON
"$folder/venv/bin/python" "$folder/look.py"
