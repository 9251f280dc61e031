"""Results of tests, kept for docs/reliability.md: ``--proofs FILE`` writes what each test measured (see tests/reliability)."""

import hashlib
import json
import os
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch

torch.set_num_threads(1)  # toy tensors are fastest on one thread

ROOT = Path(__file__).parent.parent
RESULTS = {}


def pytest_addoption(parser):
    parser.addoption("--proofs", metavar="FILE", help="write outcome and measurements of every test, as JSON")
    parser.addoption(
        "--fresh-seeds", action="store_true", help="statistical tests draw seeds nobody has seen, and print them"
    )


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
    entry = RESULTS.setdefault(report.nodeid.partition("@")[0], {"outcome": "passed", "seconds": 0.0, "found": []})
    entry["seconds"] += report.duration
    if report.outcome != "passed":
        entry["outcome"] = report.outcome
    if report.when == "call":
        entry["found"] = [list(found) for found in report.user_properties]


def sources():
    """A digest of what the results are about: the package and its tests."""
    files = sorted(p for folder in ("toyscore", "tests", "configs") for p in (ROOT / folder).rglob("*") if p.is_file())
    digest = hashlib.sha256()
    for path in files:
        if "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def pytest_sessionfinish(session):
    target = session.config.getoption("--proofs")
    if target and not hasattr(session.config, "workerinput"):
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(target).write_text(json.dumps({"sources": sources(), "tests": RESULTS}, indent=1, sort_keys=True))
