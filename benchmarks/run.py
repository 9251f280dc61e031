"""Ratios, measured in one run with the contestants interleaved: ``python benchmarks/run.py`` prints the table and writes results.md.

One thread, medians over repetitions. Only the ratios travel between machines; the times say on what scale they were taken.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import peers
import torch
from torch import Tensor

from toyscore import losses
from toyscore.distributions import BOX, asymmetric, empirical, two_modes
from toyscore.metrics import fisher_divergence
from toyscore.models import MLP
from toyscore.samplers import final, langevin
from toyscore.train import fit

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results.md"
OFFICIAL_FISHER = 0.0147  # what the official Figure 2 recipe reaches in 10,000 steps
FIT_STEPS = 300


@dataclass(frozen=True)
class Row:
    """One line of the table: milliseconds of ours, and of the other where there is one."""

    key: str
    what: str
    ours: float
    other: float | None = None

    def __str__(self) -> str:
        cells = [f'<a id="{self.key}"></a>{self.what}', f"{self.ours:.3g}"]
        cells += ["", ""] if self.other is None else [f"{self.other:.3g}", f"{self.other / self.ours:.2g}"]
        return f"| {' | '.join(cells)} |"


def timed(function: Callable[[], object]) -> float:
    """Milliseconds of one call."""
    start = time.perf_counter()
    function()
    return 1000 * (time.perf_counter() - start)


def interleaved(contestants: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median milliseconds of each, taking turns, after one call to warm up."""
    for function in contestants.values():
        function()
    rounds = [{name: timed(function) for name, function in contestants.items()} for _ in range(repeats)]
    return {name: statistics.median(r[name] for r in rounds) for name in contestants}


def sampling() -> list[Row]:
    """Plain Langevin of Figure 3 through the public API against every loop there is."""
    p, rows = two_modes(), []
    for name, (what, loop) in peers.installed(p).items():
        for n_chains, n_steps in ((1280, 1000), (100_000, 40)):
            start = BOX * (2 * torch.rand(n_chains, 2) - 1)
            ours = partial(our_sampling, start, n_steps, 0.1)
            found = interleaved({"ours": ours, "other": partial(loop, start, n_steps, 0.1)}, 15)
            described = f"Langevin, {n_chains:,} chains, {n_steps:,} steps, against {what}"
            rows.append(Row(f"langevin-{n_chains}-{name}", described, found["ours"], found["other"]))
    return rows


def our_sampling(x: Tensor, n_steps: int, step_size: float) -> Tensor:
    """The public API."""
    return final(langevin(two_modes().score, x, step_size=step_size, n_steps=n_steps))


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
    for _ in fit(model, two_modes(), losses.implicit_score_matching, n_steps=FIT_STEPS):
        pass
    return model


def training() -> list[Row]:
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
    what = (
        f"training to Fisher divergence {OFFICIAL_FISHER}: `fit`, {FIT_STEPS} steps (reached {reached['ours']:.4f}), against "
        f"the official recipe, 10,000 steps (reached {reached['official']:.4f})"
    )
    return [Row("training", what, statistics.median(ours), statistics.median(official))]


def objectives() -> list[Row]:
    """A step, loss and backward pass, of each objective: with tangents carried by hand, and by autograd."""
    p, sigma = asymmetric(), 0.5
    x = p.perturb(sigma).sample(128)
    model = MLP()
    kinds = {
        "explicit": partial(losses.explicit_score_matching, target=p.score),
        "denoising": losses.denoising_score_matching,
        "sliced": losses.sliced_score_matching,
        "implicit": losses.implicit_score_matching,
        "finite difference": losses.finite_difference_score_matching,
    }

    def steps(loss: Callable[..., Tensor], score: Callable[..., Tensor]) -> None:
        for _ in range(50):
            loss(score, x, sigma).mean().backward()

    contestants = {}
    for name, loss in kinds.items():
        contestants[name, "hand"] = partial(steps, loss, model)
        contestants[name, "autograd"] = partial(steps, loss, lambda x, sigma: model(x, sigma))
    found = {key: value / 50 for key, value in interleaved(contestants, 15).items()}  # type: ignore[arg-type]
    rows = []
    for name in kinds:
        differs = name in ("sliced", "implicit")
        what = f"a step of the {name} loss, batch 128" + (", tangents by hand, against autograd" if differs else "")
        autograd = found[name, "autograd"] if differs else None  # type: ignore[index]
        rows.append(Row(f"step-{name.replace(' ', '-')}", what, found[name, "hand"], autograd))  # type: ignore[index]
    return rows


def data_sets() -> list[Row]:
    """The exact score of 60,000 smoothed points of 784 numbers, against autograd of the log density by differences."""
    generator = torch.Generator().manual_seed(0)
    prototypes = torch.rand(10, 784, generator=generator)
    digits = prototypes[torch.randint(10, (60_000,), generator=generator)]
    points = (digits + 0.2 * torch.randn(60_000, 784, generator=generator)).clamp(0, 1)
    p, rows = empirical(points), []

    def textbook(x: Tensor, sigma: float) -> Tensor:
        scores = []
        for row in x:
            row = row.clone().requires_grad_()
            log_prob = torch.logsumexp(-(row - points).square().sum(1) / (2 * sigma**2), 0)
            scores.append(torch.autograd.grad(log_prob, row)[0])
        return torch.stack(scores)

    for sigma in (2.0, 0.1):
        x = points[:8] + sigma * torch.randn(8, 784, generator=generator)
        found = interleaved({"ours": partial(p.score, x, sigma), "other": partial(textbook, x, sigma)}, 3)
        error = float((p.score(x, sigma) - textbook(x, sigma)).norm() / textbook(x, sigma).norm())
        if error > 1e-4:
            raise RuntimeError(f"the two scores differ by {error:.1e} at sigma = {sigma}")
        what = f"`empirical`, 60,000 points of 784 numbers, 8 queries, sigma = {sigma:g}, against autograd of log q"
        rows.append(Row(f"empirical-{sigma:g}", what, found["ours"], found["other"]))
    return rows


PROBE = """
def _times():
    import json, random, time
    from toyscore.widgets import Choice, Slider, Toggle
    from toyscore.widgets.panel import _PANELS

    def values(control):
        if isinstance(control, Slider):
            return [control.at(n) for n in sorted({round(k * (control.n_values - 1) / 30) for k in range(31)})]
        return control.options if isinstance(control, Choice) else [True, False] if isinstance(control, Toggle) else [1, 2, 3]

    times = []
    for panel in list(_PANELS.values()):
        moves = [(key, value) for key, control in panel.controls.items() for value in values(control)] * 3
        random.Random(0).shuffle(moves)
        for key, value in moves:
            start = time.perf_counter()
            panel.set(**{key: value})
            times.append(1000 * (time.perf_counter() - start))
    print(json.dumps(times))

_times()
"""


def sliders() -> list[Row]:
    """A move of a control in a real kernel, all that happens there: draw, render, encode, send. Every control of every notebook."""
    import nbformat
    from nbclient import NotebookClient

    import build

    rows = []
    for path in build.sources([]):
        notebook = build.read(path)
        if " panel(" not in path.read_text() and "widgets.panel(" not in path.read_text():
            continue
        notebook.cells.append(nbformat.v4.new_code_cell(PROBE))
        resources = {"metadata": {"path": str(ROOT / "notebooks")}}
        NotebookClient(notebook, kernel_name="python3", timeout=300, resources=resources).execute()
        times = sorted(json.loads(notebook.cells[-1].outputs[0].text))
        number = path.stem[:2]
        what = f"a move of a control of notebook {number} in its kernel"
        rows.append(Row(f"slider-{number}-median", f"{what}, median of {len(times)}", statistics.median(times)))
        rows.append(Row(f"slider-{number}-p95", f"{what}, 95th percentile", times[int(0.95 * len(times))]))
    return rows


def notebooks() -> list[Row]:
    """Each notebook from top to bottom, the start of its kernel included."""
    import build

    return [
        Row(
            f"notebook-{path.stem[:2]}",
            f"notebook {path.stem[:2]} from top to bottom",
            statistics.median(timed(partial(build.build, path)) for _ in range(3)),
        )
        for path in build.sources([])
    ]


def imports() -> list[Row]:
    """What importing toyscore adds to importing torch."""
    code = "import torch, time; t = time.perf_counter(); import toyscore; print(1000 * (time.perf_counter() - t))"
    found = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        for _ in range(7)
    ]
    return [Row("import", "`import toyscore` after `import torch`", statistics.median(found))]


def suite() -> list[Row]:
    """What benchmarks/suite.py kept: the figures, the tests and CI against an earlier commit."""
    path = ROOT / "benchmarks" / "suite.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    rows = []
    for key, found in kept.items():
        ours, other = (1000 * statistics.median(found[name]) for name in ("now", "before"))
        rows.append(
            Row(f"suite-{key.replace(', ', '-').replace(' ', '-')}", f"{key}, against an earlier commit", ours, other)
        )
    return rows


def machine() -> str:
    """What this ran on."""
    info = Path("/proc/cpuinfo")
    named = (
        [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    versions = {
        name: importlib.metadata.version(name)
        for name in ("torch", "numpy", "matplotlib", "torchebm", "jax")
        if name in present()
    }
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    processor = (named or [platform.processor() or "unknown processor"])[0]
    return f"{processor}, {platform.system()} {platform.machine()}; Python {platform.python_version()}, {listed}"


def present() -> set[str]:
    """The distributions that are installed."""
    return {d.name.lower() for d in importlib.metadata.distributions()}


GROUPS = {  # the ids of a measurement's rows begin with its key
    "langevin": sampling,
    "training": training,
    "step": objectives,
    "empirical": data_sets,
    "slider": sliders,
    "notebook": notebooks,
    "import": imports,
    "suite": suite,
}


def kept(head: list[str], only: list[str]) -> dict[str, list[str]]:
    """The stored rows of the groups that are not measured; refused where they are from another machine or version."""
    if not only:
        return {}
    stored = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    if stored[: len(head)] != head:
        raise SystemExit("--only keeps the other rows, and those are of another machine or version; run all")
    groups: dict[str, list[str]] = {key: [] for key in GROUPS if key not in only}
    for line in stored[len(head) :]:
        key = line.partition('id="')[2].partition("-")[0].partition('"')[0]
        if key in groups:
            groups[key].append(line)
    return groups


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="Measure, and write benchmarks/results.md.")
    parser.add_argument(
        "--only",
        choices=GROUPS,
        action="append",
        default=[],
        help="these rows alone, and keep the others; may be repeated",
    )
    only = parser.parse_args(arguments).only
    torch.set_num_threads(1)
    os.environ["XLA_FLAGS"] = (
        "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"  # before JAX is imported
    )
    sys.path.insert(0, str(ROOT / "notebooks"))
    head = [
        "# Benchmarks",
        "",
        "Written by `make bench`; do not edit. Contestants took turns in one run on one thread; medians.",
        "torchebm and JAX take part where they are installed beside toyscore.",
        f"Machine: {machine()}.",
        "",
        "| what | ms | ms of the other | ratio |",
        "| --- | --- | --- | --- |",
    ]
    rows = kept(head, only)
    for key, measure in GROUPS.items():
        if key not in rows:
            rows[key] = []
            for row in measure():
                rows[key].append(str(row))
                print(row, flush=True)
    RESULTS.write_text("\n".join([*head, *(line for key in GROUPS for line in rows[key])]) + "\n")


if __name__ == "__main__":
    main()
