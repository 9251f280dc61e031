"""Ratios, measured in one run with the contestants interleaved: ``python benchmarks/run.py`` prints the table and writes results.md.

One thread, medians over repetitions. Only the ratios travel between machines; the seconds say on what scale they were taken.
"""

from __future__ import annotations

import math
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from toyscore.distributions import BOX, two_modes
from toyscore.losses import implicit_score_matching
from toyscore.metrics import fisher_divergence
from toyscore.models import MLP
from toyscore.samplers import final, langevin
from toyscore.train import fit

RESULTS = Path(__file__).parent / "results.md"
OFFICIAL_FISHER = 0.0147  # what the official Figure 2 recipe reaches in 10,000 steps
FIT_STEPS = 300


def timed(function: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def interleaved(contestants: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each, taking turns, after one call to warm up."""
    for function in contestants.values():
        function()
    rounds = [{name: timed(function) for name, function in contestants.items()} for _ in range(repeats)]
    return {name: statistics.median(r[name] for r in rounds) for name in contestants}


def textbook_langevin(x: torch.Tensor, n_steps: int, step_size: float) -> torch.Tensor:
    """The loop of a tutorial: autograd of a [B, K] log density at every step."""
    p = two_modes()
    means, log_weights = p.means, p.weights.log()
    for _ in range(n_steps):
        x = x.detach().requires_grad_()
        squares = (x[:, None] - means).square().sum(-1)
        log_prob = torch.logsumexp(log_weights - 0.5 * squares - math.log(2 * math.pi), 1)
        (grad,) = torch.autograd.grad(log_prob.sum(), x)
        x = x.detach() + step_size / 2 * grad + math.sqrt(step_size) * torch.randn_like(x)
    return x


def official_training(n_steps: int) -> MLP:
    """The official Figure 2 recipe: variance-reduced sliced score matching by double backward, Adam 1e-3, batch 128."""
    torch.manual_seed(0)
    model, p = MLP(), two_modes()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(n_steps):
        x = p.sample(128).requires_grad_()
        v = torch.randn_like(x)
        s = model(x)
        (grad,) = torch.autograd.grad((s * v).sum(), x, create_graph=True)
        loss = (0.5 * s.square().sum(1) + (grad * v).sum(1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def our_training() -> MLP:
    """``fit`` with its defaults."""
    torch.manual_seed(0)
    model = MLP()
    for _ in fit(model, two_modes(), implicit_score_matching, n_steps=FIT_STEPS):
        pass
    return model


def sampling_rows() -> list[tuple[str, float, float]]:
    """Plain Langevin of Figure 3 through the public API against the textbook loop."""
    p, rows = two_modes(), []
    for n_chains, n_steps, repeats in ((1280, 1000, 9), (100_000, 40, 9)):
        start = BOX * (2 * torch.rand(n_chains, 2) - 1)
        seconds = interleaved(
            {
                "ours": lambda x=start, n=n_steps: final(langevin(p.score, x, step_size=0.1, n_steps=n)),
                "textbook": lambda x=start, n=n_steps: textbook_langevin(x, n, 0.1),
            },
            repeats,
        )
        rows.append(
            (
                f"Langevin, {n_chains:,} chains, {n_steps:,} steps, against the textbook loop",
                seconds["ours"],
                seconds["textbook"],
            )
        )
    return rows


def training_rows() -> list[tuple[str, float, float]]:
    """Training to the Fisher divergence of the official recipe."""
    p = two_modes()
    x = p.sample(50_000, generator=torch.Generator().manual_seed(1))
    models: dict[str, MLP] = {}
    ours, official = [], []
    our_training()
    for _ in range(3):
        ours.append(timed(lambda: models.update(ours=our_training())))
        official.append(timed(lambda: models.update(official=official_training(10_000))))
    reached = {name: fisher_divergence(model, p, x) for name, model in models.items()}
    if reached["ours"] > OFFICIAL_FISHER:
        raise RuntimeError(f"fit reached {reached['ours']:.4f}, not {OFFICIAL_FISHER}: raise FIT_STEPS")
    name = (
        f"training to Fisher divergence {OFFICIAL_FISHER}: `fit`, {FIT_STEPS} steps (reached {reached['ours']:.4f}), "
        f"against the official recipe, 10,000 steps (reached {reached['official']:.4f})"
    )
    return [(name, statistics.median(ours), statistics.median(official))]


def import_row() -> tuple[str, float]:
    """Seconds that importing toyscore adds to importing torch."""
    code = "import torch, time; t = time.perf_counter(); import toyscore; print(time.perf_counter() - t)"
    seconds = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        for _ in range(7)
    ]
    return "`import toyscore` after `import torch`", statistics.median(seconds)


def main() -> None:
    """Measure, print, write."""
    torch.set_num_threads(1)
    rows = [*sampling_rows(), *training_rows()]
    processor = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        )
        if Path("/proc/cpuinfo").exists()
        else iter(()),
        platform.processor(),
    )
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`; do not edit. Contestants took turns in one run on one thread; medians.",
        f"Machine: {processor}, {platform.system()} {platform.machine()}; Python {platform.python_version()}, torch {torch.__version__}.",
        "",
        "| what | seconds | of the other | ratio |",
        "| --- | --- | --- | --- |",
        *(f"| {name} | {ours:.3f} | {theirs:.3f} | {theirs / ours:.1f} |" for name, ours, theirs in rows),
        "| {} | {:.3f} | - | - |".format(*import_row()),
        "",
    ]
    RESULTS.write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
