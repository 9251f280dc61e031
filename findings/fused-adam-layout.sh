#!/usr/bin/env bash
# torch 2.13.0: fused Adam trains wrongly once a network is moved to channels_last after its first step.
#
# Guess: memory layout is not data, so the weights stay those of the unfused optimizer, to rounding.
# Seen: without fused=True they do (difference 0). With it the weights after three more steps are off by about 0.04, with no warning:
# the moments keep their old strides, and the fused kernel pairs numbers by where they lie in memory.
# Exits 1 if that has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$folder/look.py" <<'PYTHON'
import sys

import torch


def weights(fused, moved):
    torch.manual_seed(0)
    network = torch.nn.Conv2d(3, 4, 3)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01, fused=fused)
    x = torch.randn(8, 3, 6, 6)
    for step in range(6):
        if moved and step == 3:
            network.to(memory_format=torch.channels_last)
        optimizer.zero_grad()
        network(x).square().mean().backward()
        optimizer.step()
    return network.weight.detach().contiguous()


plain = weights(False, False)
off = {(fused, moved): float((weights(fused, moved) - plain).abs().max()) for fused in (False, True) for moved in (False, True)}
print("torch", torch.__version__)
for (fused, moved), error in off.items():
    print(f"fused={fused!s:5} moved to channels_last={moved!s:5}: largest difference of a weight {error:.1e}")
sys.exit(not (off[False, True] < 1e-6 and off[True, False] < 1e-6 and off[True, True] > 1e-2))
PYTHON
"$folder/venv/bin/python" "$folder/look.py"
