"""``toyscore evaluate``: samples beside real examples, in a table, in numbers and in pictures."""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from toyscore import evaluation
from toyscore._extras import install_line
from toyscore._writing import replacing
from toyscore.build import build_data, draw_samples
from toyscore.cli.folder import locked
from toyscore.cli.machine import is_first
from toyscore.cli.options import Evaluate
from toyscore.cli.sampling import prepared, write_picture
from toyscore.config import ConfigError

_SHOWN = 32


def evaluate(options: Evaluate, overrides: dict[str, Any]) -> str:
    """Draw samples, judge them and the network, write what was found; returns the tables.

    The folder holds evaluation.md, evaluation.json, samples.png and, for images, nearest.png: samples, each with the nearest training
    example to its right.

    Raises:
        ConfigError, CheckpointError, FolderError, DivergenceError, ImportError, DownloadError, OSError: see ``cli.errors``.
    """
    from toyscore import plotting

    if options.samples is not None and options.samples < evaluation.FEWEST:
        raise ConfigError(
            f"samples = {options.samples}: neighbours of samples are looked for; it must be at least {evaluation.FEWEST}"
        )
    loaded, config, group = prepared(options, overrides)
    _check_installed(str(config.data.name), options.inception)  # before samples are drawn, not after
    build_data(config.data)  # missing data are told before samples are drawn, not after
    n = options.samples or evaluation.default_n(config)
    folder = Path(options.out) if options.out else Path(options.folder or "") / "evaluation"
    if not is_first(group):
        draw_samples(loaded.network, config, loaded.data, n, options.seed, batch=options.batch, group=group)
        return ""
    with locked(folder):
        x = draw_samples(loaded.network, config, loaded.data, n, options.seed, batch=options.batch, group=group)
        found = evaluation.evaluate(loaded.network, x, config, seed=options.seed, inception=options.inception)
        found.facts["step"] = loaded.about["step"]
        text = _text(found)
        # whoever reads table and numbers sees whether they belong together
        found.facts["table"] = hashlib.sha256(f"{text}\n".encode()).hexdigest()
        names = ["evaluation.json", "evaluation.md", "samples.png"] + ["nearest.png"] * (found.samples.ndim == 4)
        with ExitStack() as whole:  # all are written before any takes its place, the numbers last
            new = {name: whole.enter_context(replacing(folder / name)) for name in names}
            new["evaluation.md"].write_text(text + "\n")
            new["evaluation.json"].write_text(json.dumps(found.asdict(), indent=1) + "\n")
            write_picture(found.samples, new["samples.png"])
            if "nearest.png" in new:
                pairs = torch.stack([found.samples[:_SHOWN], found.nearest[:_SHOWN]], 1).flatten(0, 1)
                words = f"{len(pairs) // 2} samples, each with the nearest training example on its right"
                plotting.save_mosaic(plotting.mosaic(pairs, n_columns=8), new["nearest.png"], words)
    return f"{text}\n\nwritten: {folder}"


def _check_installed(data: str, inception: bool) -> None:
    """Refuse what the measures of a data set cannot do without; pictures without labels are judged by their numbers."""
    labelled = data not in ("toy", "photos", "folder")
    wanted = {
        "POT": ("ot", install_line("metrics"), data == "toy"),
        "torchmetrics": ("torchmetrics", install_line("metrics"), labelled or inception),
        "torch_fidelity": ("torch_fidelity", "pip install torch-fidelity", inception),
    }
    missing = {name: line for name, (module, line, needed) in wanted.items() if needed and not find_spec(module)}
    if missing:
        raise ImportError(
            f"evaluating needs {' and '.join(missing)}: install it with {' and '.join(dict.fromkeys(missing.values()))}"
        )


def _text(found: evaluation.Evaluation) -> str:
    facts = found.facts
    how = (
        f"{found.n:,} samples after {facts['n_calls']:,} calls of the network of step {facts['step']:,}, seed {facts['seed']}, beside "
        f"{facts['n_training']:,} training examples. Features: {facts['features']}"
    )
    if "accuracy_held_out" in facts:
        how += f", right on {facts['accuracy_held_out']:.1%} of held-out examples"
    return f"{how}.\n\n{found.table()}\n\n{found.level_table()}"
