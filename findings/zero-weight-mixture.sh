#!/usr/bin/env bash
# torch 2.13.0: a component of weight 0 has a density in MixtureSameFamily where the weights were given as probs.
#
# Guess: a component of weight 0 adds nothing, so at its mean, 50 standard deviations from the other, the score is that of the other, -50.
# Seen: with Categorical(probs=[1, 0]) the log density there is -16.9 in place of -1250.9 and the score 0: probabilities are
# clamped to 1.2e-7 (float32) before their logarithm is taken, and no sample ever shows it. With logits=log(probs) both are right.
# Exits 1 if that has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$folder/look.py" <<'PYTHON'
import sys

import torch
from torch.distributions import Categorical, MixtureSameFamily, Normal

probs = torch.tensor([1.0, 0.0])
found = {}
for name, weights in {"probs": Categorical(probs=probs), "logits": Categorical(logits=probs.log())}.items():
    x = torch.tensor(50.0, requires_grad=True)
    log_prob = MixtureSameFamily(weights, Normal(torch.tensor([0.0, 50.0]), torch.ones(2))).log_prob(x)
    (score,) = torch.autograd.grad(log_prob, x)
    found[name] = (float(log_prob), float(score))
print("torch", torch.__version__)
for name, (log_prob, score) in found.items():
    print(f"weights [1, 0] by {name:6}: log density {log_prob:.1f}, score {score:.1f}")
right = float(Normal(0.0, 1.0).log_prob(torch.tensor(50.0)))
sys.exit(not (abs(found["logits"][0] - right) < 1e-3 and found["logits"][1] == -50 and found["probs"][0] > -17 and found["probs"][1] == 0))
PYTHON
"$folder/venv/bin/python" "$folder/look.py"
