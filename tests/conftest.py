"""Results of tests, kept for docs/reliability.md: ``--proofs FILE`` writes what each test measured (see tests/reliability)."""

import hashlib
import json
import os
import platform
import secrets
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of SciPy's linear algebra, whose digits depend on it

import pytest
import torch

torch.set_num_threads(1)  # toy tensors are fastest on one thread

ROOT = Path(__file__).parent.parent
RESULTS = {}


def pytest_addoption(parser):
    parser.addoption("--proofs", metavar="FILE", help="write outcome and measurements of every test, as JSON")
    parser.addoption("--seed", type=int, default=0, help="of statistical tests (tests/reliability), default 0")
    parser.addoption("--fresh-seeds", action="store_true", help="a seed that nobody has seen, told at the start")


def pytest_configure(config):
    config.sources = sources()
    if config.getoption("--fresh-seeds") and not hasattr(config, "workerinput"):
        config.option.seed, config.option.fresh_seeds = secrets.randbelow(2**31), False


def pytest_report_header(config):
    return f"statistical tests: --seed {config.getoption('--seed')}"


class Measured:
    """What a test found, in numbers: counts add up over a promise's tests, of measured values the largest is told."""

    def __init__(self, properties):
        self.properties = properties

    def count(self, words, n=1):
        """``n`` things were done, none of which failed."""
        self.properties.append(("count", [words, n]))

    def at_most(self, words, value, limit, unit=""):
        """Assert that a value is within its limit, and keep both."""
        self.properties.append(("at most", [words, float(value), limit, unit]))
        assert value <= limit, f"{words}: {value:.3g}{unit}, the limit is {limit:.3g}{unit}"

    def killed_by(self, test):
        """A planted mistake was found by a test."""
        self.properties.append(("killed by", test))


@pytest.fixture
def measured(request):
    return Measured(request.node.user_properties)


def pytest_runtest_logreport(report):
    entry = RESULTS.setdefault(report.nodeid, {"outcome": "passed", "seconds": 0.0, "found": []})
    entry["seconds"] += report.duration
    if report.outcome != "passed" and entry["outcome"] != "failed":
        entry["outcome"] = report.outcome
    if report.skipped:
        entry["reason"] = report.longrepr[2].removeprefix("Skipped: ")
    if report.when == "call":
        entry["found"] = [list(found) for found in report.user_properties]


def sources():
    """A digest of what results are about: the package, its tests and what they run, and the versions they run with."""
    folders = ("toyscore", "tests", "configs", "figures", "notebooks", "docs", "benchmarks")
    files = [
        p for folder in folders for p in (ROOT / folder).rglob("*") if p.is_file() and "__pycache__" not in p.parts
    ]
    kept = [
        p for p in files if p.parent.parent != ROOT or p.suffix in (".py", ".yaml", ".ipynb")
    ]  # not what they write
    digest = hashlib.sha256(f"{platform.python_version()} {torch.__version__}".encode())
    for path in sorted([*kept, ROOT / "Makefile", ROOT / "pyproject.toml", ROOT / "constraints.txt"]):
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def pytest_sessionfinish(session):
    target = session.config.getoption("--proofs")
    if target and not hasattr(session.config, "workerinput"):
        if session.config.sources != sources():
            words = f"--proofs {target}: nothing written, for the sources changed while their tests ran; run them again"
            session.config.get_terminal_writer().line(words)
            return
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        kept = {"sources": session.config.sources, "tests": RESULTS}
        Path(target).write_text(json.dumps(kept, indent=1, sort_keys=True))
