"""Draw every figure of the repository and write down its numbers: ``python figures/run.py [--list] [--only ID] [--quick] [--check]``.

``--only objectives --loss module:function [--clean]`` puts a loss of your own into the picture of the library's.

A figure is a file ``figures/<id>.py`` with

- ``compute(seed, quick) -> arrays``, everything slow, a dictionary of NumPy arrays; one that takes ``yours`` takes a loss;
- ``numbers(arrays) -> {name: (value, tolerance)}``, what the figure claims; the tolerance is what another machine's
  rounding, or another seed, may change;
- ``draw(arrays) -> Figure``, or ``frames(arrays) -> (frames, fps)`` for a GIF;
- ``caption(arrays) -> str``, made from the numbers.

Figures are independent and run in parallel processes of one thread each. What several need is computed once (``shared``). All their
random numbers come from generators of their own: one that reads or changes the global ones of torch, NumPy or Python is refused, since
it would depend on what ran before it. One that fails does not stop the others; the exit code says so.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import math
import multiprocessing
import os
import platform
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = Path(__file__).parent
NUMBERS = FOLDER / "numbers.json"
SEED = 0
PAPERS = ("ncsn-", "sde-")  # figures of the papers begin so


def ids() -> list[str]:
    """The figures there are, in order."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in ("run", "shared"))


def load(name: str) -> ModuleType:
    """The module of a figure; its id need not be a Python name."""
    spec = importlib.util.spec_from_file_location(name.replace("-", "_"), FOLDER / f"{name}.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"{FOLDER / name}.py cannot be loaded: it must be a Python file; see --list")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def find_loss(path: str) -> Callable[..., Any]:
    """The function that ``module:function`` names, imported from the current folder or from what is installed.

    Raises:
        ValueError: no such thing; says what there is.
    """
    module_name, colon, name = path.partition(":")
    if not (module_name and colon and name):
        raise ValueError("it must be module:function; write e.g. mine:my_loss for my_loss of mine.py in this folder")
    here = str(Path.cwd())
    if sys.path[0] != here:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise ValueError(
            f"importing {module_name} gave {type(error).__name__}: {error}; it must be importable from {here}; "
            f"try python -c 'import {module_name}' there"
        ) from error
    if not hasattr(module, name):
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        near = difflib.get_close_matches(name, public, 1) or sorted(public)[:8]
        raise ValueError(
            f"{module_name} has no {name}: it must be a function of it; pass {' or '.join(near) or 'another'}"
        )
    if not callable(getattr(module, name)):
        raise ValueError(
            f"{name} is {type(getattr(module, name)).__name__}: it must be callable as loss(score, x, sigma, *, generator); "
            "pass a function"
        )
    return getattr(module, name)


def takes_loss(name: str) -> bool:
    """Whether a figure has room for a loss of the reader's."""
    return "yours" in inspect.signature(load(name).compute).parameters


def random_states() -> dict[str, Any]:
    """Where the global random numbers stand."""
    import numpy as np
    import torch

    with suppress(ImportError):  # it draws a number when scikit-learn, or another, first imports it
        importlib.import_module("rich.style")
    parts = [np.asarray(part).tolist() for part in np.random.get_state()]
    return {"torch": torch.get_rng_state().tolist(), "NumPy": parts, "Python": random.getstate()}


def make(
    name: str, quick: bool, out: str | None, seed: int = SEED, loss: str | None = None, clean: bool = False
) -> dict[str, Any]:
    """Compute a figure, draw it into ``out`` (or nowhere), and return its entry for numbers.json.

    ``loss``, a ``module:function`` that takes x drawn from q_sigma, or ``clean`` x, goes into the figures that take one.

    Raises:
        RuntimeError: the figure reads or changes global random numbers.
    """
    import matplotlib as mpl
    import torch

    from toyscore import plotting
    from toyscore.losses import perturbed

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    torch.set_num_threads(1)
    start, before = time.process_time(), random_states()
    module = load(name)
    given = {} if loss is None else {"yours": find_loss(loss) if clean else perturbed(find_loss(loss))}
    arrays = module.compute(seed, quick, **given)
    entry = {
        "seed": seed,
        "seconds": 0.0,
        "versions": {p: importlib.metadata.version(p) for p in ("torch", "numpy", "matplotlib")}
        | {"python": platform.python_version()},
        "caption": module.caption(arrays),
        "numbers": {
            key: {"value": float(value), "tolerance": float(tolerance)}
            for key, (value, tolerance) in module.numbers(arrays).items()
        },
    }
    if hasattr(module, "table"):
        entry["table"] = module.table(arrays)
    if out is not None:
        with mpl.rc_context(plotting.STYLE):
            if hasattr(module, "frames"):
                frames, fps = module.frames(arrays)
                plotting.save_gif(frames, Path(out) / f"{name}.gif", fps=fps, description=entry["caption"])
            else:
                figure = module.draw(arrays)
                description = f"{entry['caption']} {plotting.alt_text(figure)}"
                plotting.save(figure, Path(out) / f"{name}.png", description=description)
        plt.close("all")
    if moved := [whose for whose, state in random_states().items() if state != before[whose]]:
        raise RuntimeError(
            f"{name} moved the global random numbers of {' and '.join(moved)}: it would depend on what ran before it; pass a generator, "
            "and build networks by shared.seeded"
        )
    entry["seconds"] = round(time.process_time() - start, 1)  # of the processor, whatever else it does
    return entry


def differences(stored: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """What a figure's fresh numbers contradict in its stored ones."""
    wrong = [
        f"{key} is {'no longer' if key in stored['numbers'] else 'not yet'} there"
        for key in stored["numbers"].keys() ^ found["numbers"].keys()
    ]
    for key in stored["numbers"].keys() & found["numbers"].keys():
        old, new = stored["numbers"][key], found["numbers"][key]["value"]
        # a tolerance in proportion to its value differs in its last digits on another machine
        if not math.isclose(old["tolerance"], found["numbers"][key]["tolerance"], rel_tol=0.1):
            wrong.append(
                f"{key} has the tolerance {found['numbers'][key]['tolerance']:.3g}, stored as {old['tolerance']:.3g}"
            )
        if not math.isclose(old["value"], new, rel_tol=0, abs_tol=old["tolerance"]):
            wrong.append(f"{key} is {new:.6g}, stored as {old['value']:.6g} +- {old['tolerance']:.3g}")
    return wrong


def same(stored: dict[str, Any], found: dict[str, Any]) -> bool:
    """Whether two entries differ in nothing but the seconds they took; then the file is left as it is."""
    return {**stored, "seconds": 0} == {**found, "seconds": 0}


def longest_first(names: list[str]) -> list[str]:
    """By the seconds that each took when it was stored, those never stored before all: else the longest may be left to one process."""
    stored = json.loads(NUMBERS.read_text()) if NUMBERS.exists() else {}
    return sorted(names, key=lambda name: -stored.get(name, {}).get("seconds", math.inf))


def for_a_reader(names: list[str]) -> list[str]:
    """The papers' figures, quickest first, and the story; then the others, quickest first, so that the long ones keep nobody waiting."""
    quickest = longest_first(names)[::-1]
    first = [name for name in quickest if name.startswith(PAPERS)] + [name for name in quickest if name == "story"]
    return first + [name for name in quickest if name not in first]


def run(names: list[str], quick: bool, out: str | None, *loss: Any) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The entries of the figures that came out, begun in the order given, and the names of those that failed; ``loss`` as for ``make``."""
    from tqdm import tqdm

    entries, failed, waiting = {}, [], [*names]
    os.environ["OMP_NUM_THREADS"] = "1"
    spawn = multiprocessing.get_context("spawn")
    n_processes = min(len(names), os.cpu_count() or 1)
    with ProcessPoolExecutor(n_processes, mp_context=spawn) as pool:
        running: dict[Future[dict[str, Any]], str] = {}
        with tqdm(total=len(names), unit="figure", disable=None) as bar:
            while waiting or running:
                while waiting and len(running) < n_processes:
                    name = waiting.pop(0)
                    tqdm.write(f"{name} begins")
                    running[pool.submit(make, name, quick, out, SEED, *loss)] = name
                for job in wait(running, return_when=FIRST_COMPLETED).done:
                    name = running.pop(job)
                    try:
                        entries[name] = job.result()
                        tqdm.write(f"{name}  {entries[name]['seconds']:.1f} s  {entries[name]['caption']}")
                    except (
                        Exception
                    ):  # one figure must not stop the others: its traceback is shown and the exit code tells
                        failed.append(name)
                        tqdm.write(f"{name}  FAILED\n{traceback.format_exc()}", file=sys.stderr)
                    bar.update()
    return entries, failed


def spread(names: list[str], n_seeds: int) -> int:
    """Print the mean and standard deviation of every number over seeds: what tolerances are made from."""
    import statistics

    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool:
        for name in names:
            entries = list(pool.map(make, [name] * n_seeds, [False] * n_seeds, [None] * n_seeds, range(n_seeds)))
            for key in entries[0]["numbers"]:
                values = [entry["numbers"][key]["value"] for entry in entries]
                print(
                    f"{name}  {key}  {statistics.mean(values):.5g} +- {statistics.stdev(values):.2g} over {n_seeds} seeds"
                )
    return 0


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Draw the figures and write down their numbers.")
    parser.add_argument("--list", action="store_true", help="print the ids and stop")
    parser.add_argument("--only", metavar="ID", action="append", help="this figure alone; may be repeated")
    parser.add_argument(
        "--quick", action="store_true", help="smaller computations, drawn into figures/quick; numbers are not kept"
    )
    parser.add_argument(
        "--check", action="store_true", help="recompute, draw, and compare with numbers.json; keep nothing"
    )
    parser.add_argument(
        "--spread", metavar="N", type=int, help="mean and deviation of each number over seeds 0 to N - 1; draw nothing"
    )
    parser.add_argument(
        "--loss",
        metavar="MODULE:FUNCTION",
        help="with --only objectives: a loss of your own, loss(score, x, sigma, *, generator) -> [B] with x drawn from "
        "q_sigma, beside the library's; drawn into figures/custom; numbers are not kept",
    )
    parser.add_argument("--clean", action="store_true", help="the loss takes clean x and adds the noise itself")
    options = parser.parse_args(arguments)
    if options.quick and options.check:
        parser.error(
            "--quick computes other numbers than those stored, so --check cannot compare them; pass one of the two"
        )
    known = ids()
    if options.list:
        print(*known, sep="\n")
        return 0
    for name in options.only or []:
        if name not in known:
            parser.error(f"--only {name}: there is no such figure; choose from {', '.join(known)}")
    names = options.only or known
    if options.clean and options.loss is None:
        parser.error("--clean says what x a loss takes, and there is none; pass --loss module:function")
    if options.loss is not None:
        if options.check:
            parser.error(
                f"--loss {options.loss} draws a picture that is not kept, so --check has nothing to compare; pass one of the two"
            )
        refused = [name for name in names if not takes_loss(name)]
        if refused:
            taking = ", ".join(f"--only {name}" for name in known if takes_loss(name))
            parser.error(f"--loss {options.loss}: {', '.join(refused)} takes no loss; pass {taking}")
        try:
            find_loss(options.loss)
        except ValueError as error:
            parser.error(f"--loss {options.loss}: {error}")
    if options.spread is not None:
        if options.spread < 2 or options.quick or options.check or options.loss:
            parser.error(
                f"--spread {options.spread} needs two seeds or more, and none of --quick, --check and --loss; pass --spread 8"
            )
        return spread(names, options.spread)
    folder = FOLDER / ("custom" if options.loss else "quick" if options.quick else "")
    folder.mkdir(exist_ok=True)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as nowhere:
        names, out = (longest_first(names), nowhere) if options.check else (for_a_reader(names), str(folder))
        entries, failed = run(names, options.quick, out, options.loss, options.clean)
    stored = json.loads(NUMBERS.read_text()) if NUMBERS.exists() else {}
    if options.check:
        for name, entry in entries.items():
            wrong = (
                differences(stored[name], entry) if name in stored else ["it is not in numbers.json: run make figures"]
            )
            failed += [name] if wrong else []
            print(f"{name}: {'; '.join(wrong) if wrong else 'agrees'}")
    elif not (options.quick or options.loss):
        changed = {name: entry for name, entry in entries.items() if not same(stored.get(name, {}), entry)}
        stored = {name: entry for name, entry in (stored | changed).items() if name in known}
        NUMBERS.write_text(json.dumps(stored, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    print(f"{len(names) - len(set(failed))} of {len(names)} figures in {time.perf_counter() - start:.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
