import pytest
from laws import confirmed


@pytest.fixture
def likely(request, measured):
    """Check a law: ``likely(law, n)`` with ``law(n, seed)`` a p-value; seeds are fixed unless ``--fresh-seeds``."""

    def check(law, n):
        confirmed(law, n, None if request.config.getoption("--fresh-seeds") else 0)
        measured.count("laws compared, each with alpha = 1e-6")

    return check
