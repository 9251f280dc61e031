"""How long figures, tests and CI take, against an earlier commit: ``python benchmarks/suite.py COMMIT figures test ci``.

Both commits are cloned into a temporary folder and installed there; they take turns, in rounds, and medians are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
KEPT = ROOT / "benchmarks" / "suite.json"
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}  # as a reader has it, for both
COMMANDS = {"figures": ["make", "figures"], "test": ["make", "test"], "ci": ["bash", ".ci/run"]}


def seconds(tree: Path, what: str) -> dict[str, float]:
    """Run a command in a tree; its seconds, and for figures those until the first picture."""
    before = {path: path.stat().st_mtime_ns for path in pictures(tree)}
    if what == "figures":
        shutil.rmtree(tree / "build", ignore_errors=True)  # nothing that an earlier run kept
    with (tree.parent / f"{tree.name}-{what}.log").open("w") as log:
        start, found = time.perf_counter(), {}
        process = subprocess.Popen(COMMANDS[what], cwd=tree, stdout=log, stderr=log, env=ENVIRONMENT)
        while process.poll() is None:
            if what == "figures" and not found:
                new = [path for path in pictures(tree) if path.stat().st_mtime_ns != before.get(path)]
                found = {"first picture": time.perf_counter() - start} if new else {}
            time.sleep(0.1)
    if process.returncode:
        sys.exit(f"{what} of {tree.name} ended with {process.returncode}: see {log.name}")
    return found | {what: time.perf_counter() - start}


def pictures(tree: Path) -> list[Path]:
    """The figures of a tree."""
    return [path for kind in ("png", "gif") for path in (tree / "figures").glob(f"*.{kind}")]


def installed(folder: Path, commit: str, name: str) -> Path:
    """A clone of a commit, with its environment."""
    tree = folder / name
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(tree)], check=True)
    subprocess.run(["git", "checkout", "--quiet", "--detach", commit], cwd=tree, check=True)
    subprocess.run(["make", "setup"], cwd=tree, check=True, stdout=subprocess.DEVNULL)
    return tree


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("commit", help="the earlier one")
    parser.add_argument("what", nargs="+", choices=COMMANDS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", help="as taskset takes them; default all")
    options = parser.parse_args()
    if options.cores is not None:
        os.sched_setaffinity(0, [int(core) for core in options.cores.split(",")])
    n_cores = len(os.sched_getaffinity(0))
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        trees = {
            "before": installed(Path(folder), options.commit, "before"),
            "now": installed(Path(folder), "HEAD", "now"),
        }
        for what in options.what:
            taken: dict[str, dict[str, list[float]]] = {}
            for _ in range(options.rounds):
                for name, tree in trees.items():
                    for key, value in seconds(tree, what).items():
                        taken.setdefault(key, {}).setdefault(name, []).append(value)
                        print(what, name, key, f"{value:.1f} s", flush=True)
            for key, found in taken.items():
                medians = {name: statistics.median(values) for name, values in found.items()}
                kept[f"{key}, {n_cores} cores" if n_cores > 1 else f"{key}, one core"] = found
                print(
                    f"{key}: {medians['now']:.1f} s, before {medians['before']:.1f} s, {medians['now'] / medians['before']:.2f}"
                )
            KEPT.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
