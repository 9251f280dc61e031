"""The examples in the docstrings print what they show."""

import doctest
import importlib
from pathlib import Path

import pytest
import torch

PACKAGE = Path(__file__).parent.parent / "toyscore"
FIRST_MET = {
    *("GaussianMixture", "two_modes", "empirical", "geometric", "karras"),
    *("explicit_score_matching", "implicit_score_matching", "sliced_score_matching"),
    *("finite_difference_score_matching", "denoising_score_matching", "fit"),
    *("langevin", "annealed_langevin", "reverse_sde", "probability_flow", "final"),
    *("VE", "VP", "time_score", "fisher_divergence", "mode_weights"),
}
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if ">>> " in path.read_text()]


def examples():
    """The doctests of all public objects, each with nothing imported beforehand"""
    finder = doctest.DocTestFinder()
    for path in FILES:
        module = importlib.import_module(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))
        for name, value in vars(module).items():
            if getattr(value, "__module__", None) == module.__name__ and not name.startswith("_"):
                found = finder.find(value, f"{module.__name__}.{name}", module=False, globs={})  # decorated ones, too
                yield from (test for test in found if test.examples)


EXAMPLES = list(examples())


@pytest.fixture(autouse=True)
def _as_a_reader_starts():
    """float32 and one thread; an example that draws without a generator, as networks do their weights, disturbs no test"""
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(1)
        yield
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda test: test.name.removeprefix("toyscore."))
def test_an_example_prints_what_it_shows(example):
    report = []
    assert doctest.DocTestRunner().run(example, out=report.append).failed == 0, "".join(report)


def test_what_a_beginner_meets_first_has_an_example():
    assert {test.name.rsplit(".", 1)[1] for test in EXAMPLES} >= FIRST_MET
    assert len(EXAMPLES) >= 25


def test_no_example_is_left_out():
    """As many as the sources have: none is in a private place, or where the finder does not look"""
    written = sum(line.lstrip().startswith(">>> ") for path in FILES for line in path.read_text().splitlines())
    assert sum(len(test.examples) for test in EXAMPLES) == written
