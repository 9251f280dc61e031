import pytest

from reliability.laws import confirmed
from runs import tiny
from toyscore.cli import main


@pytest.fixture
def likely(request, measured):
    """Check a law: ``likely(law, n)`` with ``law(n, seed)`` a p-value; the seed is 0 unless ``--seed`` or ``--fresh-seeds``."""

    def check(law, n):
        confirmed(law, n, request.config.getoption("--seed"))
        measured.count("laws compared, each with alpha = 1e-6")

    return check


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A run of 40 steps; tests copy it before they change anything."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert main(tiny(run)) == 0
    return run
