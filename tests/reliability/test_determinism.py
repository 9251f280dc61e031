"""The same seed, two fresh processes, the same bytes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


@pytest.mark.slow
def test_two_fresh_processes_sample_train_judge_and_draw_the_same_bytes(tmp_path, measured):
    """Started elsewhere, at another time, with other hashes of strings"""
    found = []
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        environment = os.environ | {"PYTHONHASHSEED": str(number), "PYTHONPATH": f"{ROOT}{os.pathsep}{HERE.parent}"}
        command = [sys.executable, str(HERE / "digests.py")]
        found.append(subprocess.Popen(command, cwd=tmp_path / str(number), env=environment, stdout=subprocess.PIPE))
    first, second = (json.loads(process.communicate()[0]) for process in found)
    assert {name: (first[name], second[name]) for name in first if first[name] != second[name]} == {}
    assert first.keys() == second.keys()
    assert len(set(first.values())) > 0.8 * len(first)  # they are digests of something
    measured.count("results with the same digest in two fresh processes", len(first))
