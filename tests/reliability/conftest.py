import contextlib
import time
from pathlib import Path

import pytest
import torch

from reliability.laws import confirmed
from runs import peak, toy
from toyscore import evaluation
from toyscore.cli import main


@pytest.fixture
def likely(request):
    """Check a distribution: ``likely(p_value, n)`` with ``p_value(n, seed)``; the seed is 0 unless ``--seed`` or ``--fresh-seeds``."""
    return lambda p_value, n: confirmed(p_value, n, request.config.getoption("--seed"))


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A run of 40 steps; tests copy it before they change anything."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert main(toy(run)) == 0
    return run


@pytest.fixture
def little_to_judge(monkeypatch):
    """Samples and their judgement at no cost; of another seed, all of it is another."""
    x = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    facts = {"n_calls": 1, "n_training": 2, "features": "none", "sampling": {}}

    def judged(network, samples, config, *, seed, inception):
        return evaluation.Evaluation([], [], 6, facts | {"seed": seed}, x + 0.01 * seed, x, {})

    monkeypatch.setattr(evaluation, "evaluate", judged)
    monkeypatch.setattr("toyscore.cli.evaluation.build_data", lambda config: None)
    for module in ("sampling", "evaluation"):
        monkeypatch.setattr(f"toyscore.cli.{module}.draw_samples", lambda *args, **options: x)


@pytest.fixture
def harmless(tmp_path, monkeypatch):
    """Whatever a test reads: nothing is run (which would leave a file, marker), it takes no ten seconds, and no gigabyte."""
    monkeypatch.chdir(tmp_path)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak, from now on
    began, before = time.process_time(), peak()
    yield
    assert not (tmp_path / "marker").exists()
    assert time.process_time() - began < 10
    assert peak() - before < 2**20
