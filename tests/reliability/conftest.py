import pytest
import torch

from reliability.laws import confirmed
from runs import tiny
from toyscore import evaluation
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


@pytest.fixture
def little_to_judge(monkeypatch):
    """Samples and their judgement at no cost; of another seed, all of it is another."""
    x = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    facts = {"n_calls": 1, "n_training": 2, "features": "none", "sampling": {}}

    def judged(network, samples, config, *, seed, inception):
        return evaluation.Evaluation([], [], 6, facts | {"seed": seed}, x + 0.01 * seed, x, {})

    monkeypatch.setattr(evaluation, "evaluate", judged)
    for module in ("sampling", "evaluation"):
        monkeypatch.setattr(f"toyscore.cli.{module}.draw_samples", lambda *args, **options: x)
