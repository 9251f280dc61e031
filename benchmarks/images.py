"""How many images a second: training and sampling of the paper's networks, each way to be faster on top of the one before.

``python benchmarks/images.py`` prints a table for each network; ``--write`` keeps it in images.json, from which docs/scaling.md is made.
Variants take turns on the same batches from the same weights, and medians are taken. Warmed up, each trains for three steps whose losses
must agree with those of a plain loop that owes nothing to ``fit``; where they do not, the speed is that of another computation, and the
exit code is 1. In float32 all three must; in bfloat16 the first, which is of the same weights: from then on the weights are others, since
Adam makes whole steps of gradients that are zero but for rounding (a bias before a norm). How far the third is off is shown as drift.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from os import environ
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Generator, Tensor, nn

from toyscore.build import build_loss, build_network, n_calls, quicken, sampling_chain
from toyscore.cli.machine import start
from toyscore.cli.summary import costs
from toyscore.config import Config
from toyscore.data import Images
from toyscore.train import draw_seed, fit, rate

ROOT = Path(__file__).parent.parent
STORED = ROOT / "benchmarks" / "images.json"
SEED = 0
N_IMAGES = 4096
N_WARM = 2  # the second call of a chain comes in another memory order, and is compiled anew
N_CHECKED = 3
FACTS = {"mean": 0.5, "variance": 1 / 12}  # of bytes at random
PEAKS = {
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
}  # bfloat16 FLOP/s of the SXM cards, dense: NVIDIA's data sheets
OTHER_CARDS = ("PCIe", "NVL", "MIG")  # the same name and fewer or slower processors; of the A100 only the last
ALLOWED = {
    "float32": 1e-4,
    "TF32": 1e-3,
    "bfloat16": 1e-2,
}  # relative difference of losses; TF32 rounds factors to 5e-4


@dataclass(frozen=True)
class Case:
    """A network and the images that it sees: the file in configs/ that says so, and the batch that fills a processor and an accelerator."""

    file: str
    event: tuple[int, int, int]
    batch: tuple[int, int]

    def config(self, width: int | None = None) -> Config:
        """The configuration, with no average of weights."""
        read = Config.fromdict(Config().asdict() | yaml.safe_load((ROOT / "configs" / self.file).read_text()))
        network = read.network if width is None else replace(read.network, width=width)
        return replace(read, network=network, training=replace(read.training, ema=None))


CASES = {
    "cifar10": Case("cifar10.yaml", (3, 32, 32), (8, 512)),
    "mnist": Case("mnist5k.yaml", (1, 28, 28), (8, 1024)),
}


@dataclass(frozen=True)
class Variant:
    """A way to compute the same: ``loop`` plain is the one below, with Adam unfused."""

    name: str
    loop: str = "fit"
    channels_last: bool = False
    precision: str = "float32"
    compile: bool = False


VARIANTS = (
    Variant("plain loop, Adam unfused", "plain"),
    Variant("fit (Adam fused)"),
    Variant("+ channels_last", channels_last=True),
    Variant("+ bfloat16", channels_last=True, precision="bfloat16"),
    Variant("+ compile", channels_last=True, precision="bfloat16", compile=True),
)


@dataclass(frozen=True)
class Result:
    """Of a variant: images/s in training; calls of the network times images/s in sampling; share of the peak that training reaches; seconds
    that the first steps and calls took longer than later ones; the last loss of the three steps; the largest relative difference from the
    first variant's of those that must agree, and the last one's.
    """

    training: float
    sampling: float | None
    share_of_peak: float | None
    compile_seconds: float | None
    loss: float
    difference: float
    drift: float


def plain(
    network: nn.Module, data: Images, config: Config, n_steps: int, batch: int, device: torch.device
) -> Iterator[Tensor]:
    """What anyone would write: the losses of a loop that draws as ``fit`` draws, and shares nothing else with it."""
    loss, generator = build_loss(config.noise), Generator(device)
    optimizer = torch.optim.Adam(network.parameters(), betas=(0.9, 0.95), fused=False)
    for step in range(1, n_steps + 1):
        generator.manual_seed(draw_seed(SEED, step, 0))
        optimizer.param_groups[0]["lr"] = rate(step, n_steps, config.training.lr)
        optimizer.zero_grad()
        value = loss(network, data.sample(batch, generator=generator), generator=generator).mean()
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        yield value.detach()


def wait(device: torch.device) -> None:
    """Until the device has done what it was told: before any look at the clock."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


class Contestant:
    """A variant of a case, which begins each of its turns with the same weights and draws."""

    def __init__(self, variant: Variant, case: Case, config: Config, batch: int, device: torch.device) -> None:
        self.variant, self.config, self.batch, self.device = variant, config, batch, device
        self.facts = FACTS | {"event": list(case.event)}
        values = np.random.default_rng(SEED).integers(0, 256, (N_IMAGES, *case.event), dtype=np.uint8)
        self.data = Images(values, flip=case.event[0] == 3)
        torch.manual_seed(SEED)
        self.network = build_network(config, self.facts).to(device)
        quicken(self.network, channels_last=variant.channels_last, compile=variant.compile)
        self.start = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.losses: list[float] = []
        self.warm_up_seconds: dict[str, float] = {}
        self.turns: dict[str, list[float]] = {"training": [], "sampling": []}

    def take(self, what: str, n: int) -> list[Tensor]:
        """A turn of n steps or calls: their losses or states; the seconds of one are kept, the first left out."""
        self.network.load_state_dict(self.start)
        made = self._trained(n) if what == "training" else self._sampled(n)
        wait(self.device)
        kept = [next(made)]
        wait(self.device)
        begun = time.perf_counter()
        kept += made
        wait(self.device)
        self.turns[what].append((time.perf_counter() - begun) / (n - 1))
        self.network.zero_grad()  # the next contestant may need the memory
        return kept

    def takes(self, what: str) -> bool:
        """Sampling has no plain loop of its own; and on a processor it would be compiled for minutes, twice, so it is left out there."""
        slow = self.variant.compile and self.device.type == "cpu"
        return what == "training" or (self.variant.loop == "fit" and not slow)

    def warm_up(self) -> None:
        """Compile, allocate, choose algorithms, and keep how long that took; then the losses to compare."""
        for what in filter(self.takes, self.turns):
            begun = time.perf_counter()
            self.take(what, N_WARM)
            self.warm_up_seconds[what] = time.perf_counter() - begun
        self.losses = torch.stack(self.take("training", N_CHECKED)).tolist()
        for turns in self.turns.values():
            turns.clear()

    def compile_seconds(self) -> float | None:
        """What the first steps and calls took beyond usual ones, in a network that is compiled."""
        if not self.variant.compile:
            return None
        return sum(spent - N_WARM * statistics.median(self.turns[what]) for what, spent in self.warm_up_seconds.items())

    def _trained(self, n: int) -> Iterator[Tensor]:
        if self.variant.loop == "plain":
            return plain(self.network, self.data, self.config, n, self.batch, self.device)
        steps = fit(
            self.network,
            self.data,
            build_loss(self.config.noise),
            n_steps=n,
            batch_size=self.batch,
            lr=self.config.training.lr,
            seed=SEED,
            autocast=torch.bfloat16 if self.variant.precision == "bfloat16" else None,
        )
        return (step.loss for step in steps)

    def _sampled(self, n: int) -> Iterator[Tensor]:
        """The states after the first n calls of the network; in mixed precision the network alone, as in training."""
        states = islice(sampling_chain(self.network, self.config, self.facts, self.batch, SEED), 1, 1 + n)
        while True:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.variant.precision == "bfloat16"):
                state = next(states, None)
            if state is None:
                return
            yield state


def device_name(device: torch.device) -> str:
    """What the numbers are of."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    named = re.findall(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.exists() else []
    processor = (named or [platform.processor() or platform.machine()])[0].strip()
    return processor if device.type == "cpu" else f"{processor} ({device.type})"


def peak_of(name: str) -> float | None:
    """FLOP/s in bfloat16 of a device, where it is known."""
    for card, peak in PEAKS.items():
        others = OTHER_CARDS[2:] if card == "A100" else OTHER_CARDS
        if card in name and not any(other in name for other in others):
            return peak
    return None


def arithmetic(device: torch.device) -> str:
    """How float32 convolutions are computed: torch's default, which no variant changes."""
    tf32 = (
        device.type == "cuda" and torch.backends.cudnn.allow_tf32 and torch.cuda.get_device_capability(device)[0] >= 8
    )
    return "TF32" if tf32 else "float32"


def measure(case: Case, options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """All variants of a case, in turns."""
    config = case.config(4 if options.quick else None)
    batch = options.batch or (2 if options.quick else case.batch[device.type != "cpu"])
    variants = [v for v in VARIANTS if not (v.compile and (options.without_compile or options.quick))]
    contestants = [Contestant(v, case, config, batch, device) for v in variants]
    for contestant in contestants:
        print(f"warming up: {contestant.variant.name}", file=sys.stderr, flush=True)
        contestant.warm_up()
    for what in ("training", "sampling"):
        for _ in range(options.repeats):
            for contestant in contestants:
                if contestant.takes(what):
                    contestant.take(what, options.steps)
    macs = sum(
        c.macs for c in costs(build_network(config, contestants[0].facts), torch.full((1, *case.event), 0.5), 1.0)
    )
    peak = peak_of(device_name(device))
    expected = contestants[0].losses
    return {
        "width": config.network.width,
        "event": list(case.event),
        "batch": batch,
        "steps": options.steps,
        "repeats": options.repeats,
        "multiply_adds": macs,
        "calls": n_calls(config),
        "variants": {c.variant.name: asdict(result(c, expected, macs, peak)) for c in contestants},
    }


def result(contestant: Contestant, expected: list[float], macs: int, peak: float | None) -> Result:
    """The medians of a contestant, beside the losses of the first."""
    seconds = {what: statistics.median(turns) for what, turns in contestant.turns.items() if turns}
    speed = {what: contestant.batch / value for what, value in seconds.items()}
    share = (
        None if peak is None else 6 * macs * speed["training"] / peak
    )  # two per multiply-add, backward as two forward
    differences = [abs(a / b - 1) for a, b in zip(contestant.losses, expected, strict=True)]
    rounded = {what: float(f"{value:.4g}") for what, value in speed.items()}
    spent = contestant.compile_seconds()
    return Result(
        rounded["training"],
        rounded.get("sampling"),
        None if share is None else round(share, 4),
        None if spent is None else round(spent, 1),
        contestant.losses[-1],
        float(f"{max(differences[: N_CHECKED if contestant.variant.precision == 'float32' else 1]):.2g}"),
        float(f"{differences[-1]:.2g}"),
    )


def disagreements(found: dict[str, Any], float32: str) -> Iterator[str]:
    """The variants whose losses are not those of the first."""
    for variant in VARIANTS:
        row = found["variants"].get(variant.name)
        kind = float32 if variant.precision == "float32" else variant.precision
        if row is not None and not row["difference"] <= ALLOWED[kind]:
            yield f"{variant.name}: a loss differs by {row['difference']:.2g} from the plain loop's, beyond {ALLOWED[kind]:g} ({kind})"


COLUMNS = {  # head -> its unit, its width and the form of its numbers
    "training": ("images/s", 10, ".4g"),
    "ratio": ("", 8, ".2f"),
    "of peak": ("bfloat16", 10, ".1%"),
    "sampling": ("calls x/s", 11, ".4g"),
    "samples": ("per s", 10, ".3g"),
    "compiling": ("s", 11, ".0f"),
    "loss": ("of step 3", 11, ".6g"),
    "differs": ("by", 10, ".1e"),
    "drift": ("step 3", 10, ".1e"),
}


def table(found: dict[str, Any]) -> str:
    """What was measured of a case, in lines."""
    shape, columns = "x".join(map(str, found["event"])), COLUMNS.items()
    lines = [
        f"NCSN of width {found['width']} on {shape}, batch {found['batch']}; a sample takes {found['calls']:,} calls"
    ]
    lines += ["".join(f"{name:>{width}}" for name, (_, width, _) in [("", ("", 26, "")), *columns])]
    lines += ["".join(f"{unit:>{width}}" for unit, width, _ in [("", 26, ""), *COLUMNS.values()])]
    base = next(iter(found["variants"].values()))["training"]
    for name, row in found["variants"].items():
        sampling = row["sampling"]
        values = [row["training"], row["training"] / base, row["share_of_peak"], sampling]
        values += [None if sampling is None else sampling / found["calls"]]
        values += [row["compile_seconds"], row["loss"], row["difference"], row["drift"]]
        cells = ["" if v is None else format(v, form) for v, (_, _, form) in zip(values, COLUMNS.values(), strict=True)]
        lines.append(
            f"{name:26}" + "".join(f"{cell:>{COLUMNS[head][1]}}" for cell, head in zip(cells, COLUMNS, strict=True))
        )
    return "\n".join(lines)


def store(name: str, facts: dict[str, Any], cases: dict[str, Any]) -> None:
    """Keep what was measured on this machine, and of it the other cases, where torch and threads are still the same."""
    stored = json.loads(STORED.read_text()) if STORED.exists() else {}
    before = stored.get(name, {})
    same = all(before.get(key) == value for key, value in facts.items())
    stored[name] = facts | {"cases": (before["cases"] if same and before else {}) | cases}
    STORED.write_text(json.dumps(dict(sorted(stored.items())), indent=1) + "\n")


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The options, the defaults being those of the device."""
    parser = argparse.ArgumentParser(description="Images per second in training and sampling, of two networks.")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    parser.add_argument("--only", choices=CASES, help="this network alone")
    parser.add_argument("--batch", type=int, help="images at a time; on a processor 8, on an accelerator 512 and 1,024")
    parser.add_argument(
        "--steps", type=int, help="steps and calls of a turn, the first not timed; 3, on an accelerator 20"
    )
    parser.add_argument("--repeats", type=int, help="turns of each variant; 3, on an accelerator 5")
    parser.add_argument("--without-compile", action="store_true", help="leave the compiled variant out")
    parser.add_argument("--write", action="store_true", help="update benchmarks/images.json")
    parser.add_argument("--quick", action="store_true", help="tiny networks, nothing compiled: does it run?")
    options = parser.parse_args(arguments)
    if options.quick and options.write:
        parser.error("--quick measures other networks; leave out one of --quick and --write")
    if options.steps is not None and options.steps < 2:
        parser.error(f"--steps {options.steps}: the first is not timed; it must be at least 2")
    for key in ("batch", "repeats"):
        if getattr(options, key) is not None and getattr(options, key) < 1:
            parser.error(f"--{key} {getattr(options, key)}: it must be at least 1")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, write; returns the exit code."""
    options = parsed(arguments)
    device, _ = start(options.device, None)
    fast = device.type != "cpu"
    options.steps = options.steps or (2 if options.quick else 20 if fast else 3)
    options.repeats = options.repeats or (1 if options.quick else 5 if fast else 3)
    name, float32 = device_name(device), arithmetic(device)
    facts = {"torch": torch.__version__, "threads": torch.get_num_threads(), "float32": float32}
    print(
        f"{name}; torch {facts['torch']}, {facts['threads']} threads; float32 convolutions in {float32}, torch's default"
    )
    found, wrong = {}, []
    with tempfile.TemporaryDirectory() as cache:
        if not (options.quick or options.without_compile):
            environ["TORCHINDUCTOR_CACHE_DIR"] = cache  # so that compiling is timed from nothing
        for key in [options.only] if options.only else CASES:
            found[key] = measure(CASES[key], options, device)
            print(f"\n{key}: {table(found[key])}", flush=True)
            wrong += [f"{key}, {words}" for words in disagreements(found[key], float32)]
    allowed = f"{ALLOWED[float32]:g} in {float32}, {ALLOWED['bfloat16']:g} in bfloat16"
    print(
        "\n"
        + "\n".join(
            wrong
            or [f"The losses of all variants agree with the plain loop's: within {allowed} (there of the first step)."]
        )
    )
    if options.write and not wrong:
        store(name, facts, found)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
