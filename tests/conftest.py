"""One thread, no window, and options of the statistical tests."""

import os
import secrets
from collections import Counter, defaultdict

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of SciPy's linear algebra, whose digits depend on it

import pytest
import torch

torch.set_num_threads(1)  # toy tensors are fastest on one thread


def pytest_addoption(parser):
    parser.addoption("--seed", type=int, default=0, help="of statistical tests (tests/reliability), default 0")
    parser.addoption("--fresh-seeds", action="store_true", help="a seed that nobody has seen, printed at the start")


def pytest_configure(config):
    if config.getoption("--fresh-seeds") and not hasattr(config, "workerinput"):
        config.option.seed, config.option.fresh_seeds = secrets.randbelow(2**31), False


def pytest_report_header(config):
    return f"statistical tests: --seed {config.getoption('--seed')}"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Count the cases of each test, before any is left out: docs/reliability.md states them."""
    config.cases = defaultdict(Counter)
    if not any("::" in argument for argument in config.args):
        for item in items:
            config.cases[item.nodeid.partition("::")[0]][item.originalname or item.name] += 1
