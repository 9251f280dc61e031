"""One thread, no window, and options of the statistical tests."""

import os
import secrets
import sys
from collections import Counter, defaultdict

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of SciPy's linear algebra, whose digits depend on it

import pytest
import torch

torch.set_num_threads(1)  # toy tensors are fastest on one thread
if sys.platform == "win32":  # these name signals, pipes and limits that Windows lacks as they are imported
    collect_ignore = ["test_mutation.py"] + [f"reliability/test_{name}.py" for name in ("damage", "faults", "signals")]

LONG = [  # begun late, one would keep a process busy while the other waits
    "test_a_sample_of_the_mutants_is_killed",
    "test_a_plain_install_does_all_but_what_an_extra_is_for",
    "test_a_call_gives_on_a_pretended_device_what_it_gives_on_the_cpu",
]


def pytest_addoption(parser):
    parser.addoption("--seed", type=int, default=0, help="of statistical tests (tests/reliability), default 0")
    parser.addoption("--fresh-seeds", action="store_true", help="a seed that nobody has seen, printed at the start")


def pytest_configure(config):
    if config.getoption("--fresh-seeds") and not hasattr(config, "workerinput"):
        config.option.seed, config.option.fresh_seeds = secrets.randbelow(2**31), False


def pytest_runtest_setup(item):
    if sys.platform == "win32" and (marker := item.get_closest_marker("posix")):
        pytest.skip(f"Windows has no {marker.args[0]}")


def pytest_report_header(config):
    return f"statistical tests: --seed {config.getoption('--seed')}"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Count the cases of each test, before any is left out: docs/reliability.md states them. The longest begin first."""
    config.cases = defaultdict(Counter)
    if not any("::" in argument for argument in config.args):
        for item in items:
            config.cases[item.nodeid.partition("::")[0]][item.originalname or item.name] += 1
    items.sort(key=lambda item: LONG.index(item.originalname) if item.originalname in LONG else len(LONG))
