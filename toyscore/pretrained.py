"""Trained networks: from a run, and the two in ``toyscore/weights``, of which the wheel carries the digits'.

``digits()`` and ``photos()`` are continuous in sigma over [0.01, 160], so they take any noise levels and any diffusion. They were
trained on the 8x8 digits of scikit-learn, and on 32x32 crops of its two photographs, by ``toyscore train --config
configs/digits.yaml`` and ``configs/photos.yaml``, and are kept in half precision by ``export``.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from toyscore._writing import replacing
from toyscore.build import build_network, check_facts
from toyscore.config import Config, as_read, check
from toyscore.train import Checkpoint, CheckpointError, list_checkpoints, load_checkpoint, save_checkpoint

_HERE = Path(__file__).parent / "weights"
_MOST_LEVELS = 10**8  # 800 MB while the network is built
_CARD = "---\nlibrary_name: toyscore"  # how a model card begins


@dataclass(frozen=True)
class Pretrained:
    """``.network`` is a score function ready to use; ``.data`` says for what events, mean and variance; ``.about`` where it comes from."""

    network: nn.Module
    config: Config
    data: dict[str, Any]
    about: dict[str, Any]


def load(path: str | Path) -> Pretrained:
    """The network of a run folder, a folder of checkpoints, a checkpoint or an export, on the CPU in float32; averaged weights
    where the run kept an average.

    Raises:
        CheckpointError: none there, or it is damaged.
    """
    return _network(load_checkpoint(Path(path)))


def _network(checkpoint: Checkpoint) -> Pretrained:
    weights = _used(checkpoint)
    try:
        config, data = as_read(Config.fromdict(checkpoint.about["config"])), checkpoint.about["data"]
        check(config)
        check_facts(data)
        _check_sizes(config, data, weights)
        with torch.random.fork_rng(devices=[]):  # weights are drawn, to be replaced
            network = getattr((built := build_network(config, data)), "average", built)
        _check_shapes(network.state_dict(), weights)
        network.load_state_dict(weights)
    except (KeyError, ValueError) as error:
        raise CheckpointError(
            f"{checkpoint.path} does not hold what its configuration says: {error}; save it anew"
        ) from error
    about = checkpoint.about | {"step": checkpoint.state["step"]}
    return Pretrained(network.eval().requires_grad_(False), config, data, about)


def export(source: str | Path, folder: str | Path, *, precision: Literal["float32", "float16"] = "float16") -> Path:
    """Keep of a checkpoint only the weights to use, with a model card beside them, README.md; returns the folder of the weights.

    ``load(folder)`` reads them. Buffers (levels, ranges) keep their precision. The time that training took, where it is known, stays
    noted as ``seconds``; where the run was evaluated (``toyscore evaluate``), the card tells the result.

    Args:
        source: as ``load`` takes it.
        folder: to write; what it holds must not be a run.
        precision: of the stored weights.

    Raises:
        CheckpointError, OSError: as ``load`` and ``save_checkpoint``. ValueError: folder is a run, or holds another step.
    """
    source, folder = Path(source), Path(folder).resolve()
    checkpoint = load_checkpoint(source)  # once: of a run that goes on the next would be another
    loaded = _network(checkpoint)
    there = [path for step, path in list_checkpoints(folder) if step != checkpoint.state["step"]]
    if (folder / "checkpoints").is_dir() or there:
        raise ValueError(f"{folder} holds {there[0].name if there else 'a run'}: export into a folder of its own")
    card = folder / "README.md"
    if card.exists() and not card.read_text(errors="replace").startswith(_CARD):
        raise ValueError(f"{card} is no model card of ours, and would be lost: export into a folder of its own")
    parameters, dtype = dict(loaded.network.named_parameters()), getattr(torch, precision)
    weights = {
        name: value.to(dtype) if name in parameters else value for name, value in loaded.network.state_dict().items()
    }
    state = {k: checkpoint.state[k] for k in ("step", "recipe")} | {"model": weights, "optimizer": []}
    taken = {"seconds": loaded.about["seconds"]} if "seconds" in loaded.about else {}
    saved = save_checkpoint(folder, state, {k: loaded.about[k] for k in ("config", "data", "levels")} | taken)
    with replacing(card) as new:
        new.write_text(_card(loaded, folder, saved, precision, _judged(source, loaded)))
    return saved


def _judged(run: Path, loaded: Pretrained) -> str | None:
    """What ``toyscore evaluate`` found, if it is whole, of these weights, and of samples drawn as configured."""
    try:
        facts = json.loads((run / "evaluation" / "evaluation.json").read_text())["facts"]
        table = (run / "evaluation" / "evaluation.md").read_text()
        same = (facts["step"], facts["sampling"]) == (loaded.about["step"], loaded.config.asdict()["sampling"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    whole = "table" not in facts or facts["table"] == hashlib.sha256(table.encode()).hexdigest()  # not cut short
    return table if same and whole else None


def _card(loaded: Pretrained, folder: Path, saved: Path, precision: str, judged: str | None) -> str:
    """The model card."""
    config, about, data, name = loaded.config, loaded.about, loaded.data, folder.name
    training, noise, event = config.training, config.noise, "x".join(map(str, data["event"]))
    n = sum(p.numel() for p in loaded.network.parameters())
    units = "" if config.data.name == "toy" else " with values in [0, 1]"
    within = "any sigma in that range" if config.network.kind in ("continuous", "mlp") else "these levels and no others"
    seconds = f", in {about['seconds']:,.0f} s" if "seconds" in about else ""
    average = "" if training.ema is None else f"; these are averaged weights, of which {training.ema} stay at each step"
    made = ", ".join(f"{package} {version}" for package, version in about["versions"].items())
    facts = {
        "Network": f"{config.network.kind}, width {config.network.width}, {n:,} parameters, stored in {precision}",
        "Data": f"{config.data.name}, events of shape {event}{units}; mean {data['mean']:.4f}, variance {data['variance']:.4f}",
        "Levels": f"{noise.sigma_max:g} to {noise.sigma_min:g} in units of the data; it takes {within}",
        "Training": f"denoising score matching, {training.n_steps:,} steps of {training.batch_size} examples, Adam with a rate up to "
        f"{training.lr:g}, sigma drawn by the law {noise.law}{seconds}{average}",
        "Made with": made + (f", revision {about['git']}" if about.get("git") else ""),
    }
    listed = "\n".join(f"- **{key}**: {value}." for key, value in facts.items())
    return f"""{_CARD}
tags: [score-based, denoising-score-matching, {config.data.name}]
---

# A score network of {config.data.name}, {event}

`score(x, sigma)` is the gradient of the logarithm of the density of the data with Gaussian noise of standard deviation `sigma`.

{listed}

## Use

```python
from toyscore import pretrained
score = pretrained.load("{name}").network      # checks every byte against {saved.name}/SHA256SUMS
```

or `toyscore sample --folder {name}`. The weights are plain safetensors, `{saved.name}/tensors.safetensors`, named as in the
network's `state_dict` after `model.`; the configuration is in `checkpoint.json` beside them. Nothing in the files is run on loading.

## How good it is

{judged.strip() if judged else f"Not evaluated yet: `toyscore evaluate --folder {name}`."}

## What it is not for

It knows the data above and nothing else, at the levels above; it can repeat training examples, and what it draws carries their rights.
"""


def digits() -> Pretrained:
    """The network for 1x8x8 digits that comes with the package."""
    return load(_HERE / "digits")


def photos() -> Pretrained:
    """The network for 3x32x32 crops of two photographs that comes with a clone; the wheel carries the digits' alone.

    Raises:
        CheckpointError: not there, or damaged.
    """
    folder = _HERE / "photos"
    if not folder.exists():
        raise CheckpointError(
            f"{folder} is not there: the wheel leaves it out; copy toyscore/weights/photos of a clone to it"
        )
    return load(folder)


def _check_sizes(config: Config, data: dict[str, Any], weights: dict[str, torch.Tensor]) -> None:
    """Refuse another network's configuration before that is built: it need not fit into any memory."""
    if config.network.kind != "mlp" and len(data["event"]) != 3:
        raise ValueError(f"data's event is {data['event']}, and network.kind = {config.network.kind} takes [C, H, W]")
    sizes = {n for weight in weights.values() for n in weight.shape}
    inputs = math.prod(data["event"]) if config.network.kind == "mlp" else data["event"][0]
    for name, value in (("network.width", config.network.width), ("data's event", inputs)):
        if value not in sizes:
            raise ValueError(f"{name} gives {value}, and no weight has that many rows or columns")
    stored = sum(weight.numel() for weight in weights.values())
    indexed = config.network.kind in ("ncsn", "compact")  # the others keep nothing of a level but the ends of the range
    if config.network.kind == "mlp" and config.network.depth > stored:  # each layer has weights
        raise ValueError(f"network.depth = {config.network.depth}, with {stored} numbers in all")
    if config.noise.n_levels > (stored if indexed else _MOST_LEVELS):
        raise ValueError(f"noise.n_levels = {config.noise.n_levels}, with {stored} numbers in all")


def _check_shapes(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    """In a few words what ``load_state_dict`` says of every weight."""
    for name in [*ours, *theirs]:
        a, b = (list(weights[name].shape) if name in weights else None for weights in (ours, theirs))
        if a != b:
            raise ValueError(
                f"{name} has {'no values' if b is None else f'shape {b}'}, and in the network {'no place' if a is None else a}"
            )


def _used(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """The weights to use: the average's, where there is one."""
    model = checkpoint.state["model"]
    averaged = {name.removeprefix("average."): v for name, v in model.items() if name.startswith("average.")}
    return averaged or model
