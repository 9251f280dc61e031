"""The tests have teeth: a sample of the mutants of the core must turn a test red (all of them: ``python tests/mutation.py``).

What survives stands in survivors.toml with the reason, and is not planted in the sample.
"""

import ast
import json
import os
import resource
import signal
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import pytest

import mutation
from mutants import codes, mutants, name

ROOT = Path(__file__).parent.parent
SURVIVORS = tomllib.loads(mutation.SURVIVORS.read_text())
SOURCE = '''
def spread(x, std):
    """The - of "a + b" is no place."""
    half = 0.5 * sum((v - std) ** 2 for v in x[1:])
    if half < 0 or len(x) - 1 < 1:
        raise ValueError(f"{half + 1}")
    return -(half / len(x)) ** 0.5 + max(x)
'''
PLANTED = {
    "+ to -": ["-(half / len(x)) ** 0.5 - max(x)"],
    "- to +": ["v + std"],
    "* to /": ["0.5 / sum(((v - std) ** 2 for v in x[1:]))"],
    "/ to *": ["half * len(x)"],
    "factor 2 or 1/2 dropped": ["sum(((v - std) ** 2 for v in x[1:]))"],
    "square dropped": ["v - std"],
    "root dropped": ["half / len(x)"],
    "variance for deviation": ["v - std ** 2"],
    "sum and mean": ["mean(((v - std) ** 2 for v in x[1:]))"],
    "least and largest": ["min(x)"],
    "minus dropped": ["(half / len(x)) ** 0.5"],
    "off by one": ["1 + 1:"],
}


def planted(source=SOURCE):
    tree = ast.parse(source)
    return tree, list(mutants("module.py", tree))


def test_operators_take_every_place_but_those_of_checks_and_messages():
    found = {}
    for mutant in planted()[1]:
        found.setdefault(mutant.operator, []).append(ast.unparse(mutant.new))
    assert found == PLANTED


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("a < b", ["a <= b"]),
        ("a >= b", ["a > b"]),
        ("0 < a <= b", ["0 <= a <= b", "0 < a < b"]),
        ("x.rsqrt() + x.sqrt()", ["x.rsqrt() - x.sqrt()", "x"]),
        ("math.sqrt(a)", ["a"]),
        ("x.log()", ["x"]),
        ("x.amin(0)", ["x.amax(0)"]),
        ("x.cos()", ["x.sin()"]),
        ("x.sum(1)", ["x.mean(1)"]),
        ("x[-1]", ["x[-1 + 1]", "1"]),
        ("range(n)", ["range(n - 1)"]),
        ("n + 1", ["n - 1", "n"]),
        ("std * z", ["std / z", "std ** 2 * z"]),
        ("z / 2", ["z * 2", "z"]),
        ("x.square()", ["x"]),
        ("x.exp()", ["x"]),
    ],
)
def test_what_an_operator_puts_in_the_place(right, wrong):
    assert [ast.unparse(m.new) for m in planted(f"def f():\n    return {right}\n")[1]] == wrong


def test_names_stay_where_another_function_changes():
    before = [name(m) for m in planted()[1]]
    after = [name(m) for m in planted("def first(a):\n    return 2 * a\n" + SOURCE)[1]]
    assert set(before) < set(after)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of one function: file, its live functions, its tree and mutants."""
    made, file = types.ModuleType("made"), str(tmp_path / "made.py")
    exec(compile(SOURCE, file, "exec"), made.__dict__)
    live = {(file, made.spread.__code__.co_qualname, made.spread.__code__.co_firstlineno): [made.spread]}
    return made, file, live


@pytest.mark.parametrize("mutant", range(len(planted()[1])))
def test_a_mutant_dies_by_a_test_of_it_and_survives_one_that_looks_elsewhere(module, mutant):
    made, file, live = module
    tree, found = planted()
    right = made.spread([1.0, 4.0, 2.0], 0.3)

    def looked(x):
        mutation.plant(file, codes(tree, file, found[mutant]), live)
        try:
            return made.spread(x, 0.3) == right
        except NameError:  # mean
            return False

    assert mutation.answered(*mutation.forked(lambda: looked([1.0, 4.0, 2.0]))) is False
    assert mutation.answered(*mutation.forked(lambda: bool(looked))) is True
    assert made.spread([1.0, 4.0, 2.0], 0.3) == right, "the original is another"
    assert ast.unparse(tree) == ast.unparse(planted()[0]), "the tree is another"


def test_an_endless_loop_is_out_of_time():
    def run():
        resource.setrlimit(resource.RLIMIT_CPU, (1, resource.RLIM_INFINITY))
        while True:
            pass

    assert mutation.answered(*mutation.forked(run)) == f"signal {signal.SIGXCPU.value}"


def test_survivors_are_few_and_each_has_its_reason():
    every = {name(m) for _, m in mutation.chosen("core")[1]}
    assert set(SURVIVORS) <= every, f"no mutants any more: {sorted(set(SURVIVORS) - every)}"
    assert len(SURVIVORS) <= 0.05 * len(every)
    assert all(len(reason) > 20 for reason in SURVIVORS.values())


@pytest.mark.slow
def test_a_sample_of_the_mutants_is_killed(request):
    seed = request.config.getoption("--seed")
    run = subprocess.run(
        [sys.executable, "tests/mutation.py", "--sample", "130", "--seed", str(seed)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    found = json.loads((ROOT / "build" / "mutants.json").read_text())
    assert not found["red"], "without a mistake"
    left = [mutant for mutant, killer in found["killers"].items() if killer is None]
    assert len(found["killers"]) > 100
    assert len(left) <= 0.05 * len(found["killers"]), left
    assert not left, (
        "survivors without a reason: strengthen a law, or write in survivors.toml why nothing observable changes"
    )
