"""Do the tests notice mistakes? Mutants (mutants.py) are planted one by one, and a test must turn red.

    python tests/mutation.py                                   # every mutant of the core; results go to build/mutants.json
    python tests/mutation.py --sample 130 --seed 7             # some, of every module
    python tests/mutation.py --only samplers/langevin.py:      # those whose names match
    python tests/mutation.py --survey formulas                 # diagnostics, metrics, networks, images

A mutant lives in a forked process, where the code of its function is exchanged; no file is written. The tests that call the function
follow, the fastest first, until one fails. One that takes far longer than it should, as in an endless loop, has failed.
"""

import argparse
import ast
import collections
import gc
import hashlib
import importlib
import json
import os
import pickle
import re
import resource
import signal
import sys
import time
import tomllib
import traceback
import types
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol

from mutants import codes, mutants, name

ROOT = Path(__file__).parent.parent
SURVIVORS = ROOT / "tests" / "survivors.toml"
SURVEYS = {  # name: (modules, tests)
    "core": (
        "operators.py noise.py losses.py likelihood.py distributions/*.py samplers/*.py sde/*.py",
        "test_field_mistakes test_control test_operators test_noise test_losses test_likelihood test_distributions test_empirical "
        "test_toys test_samplers test_guidance test_sde test_diffusions test_diffusion_laws "
        "reliability/test_exactness reliability/test_identities",
    ),
    "formulas": (
        "diagnostics/*.py metrics/*.py models/*.py data/sets.py plotting/plane.py",
        "test_diagnostics test_theory test_metrics test_image_metrics test_adapters test_models test_ncsn test_data test_plotting test_sde "
        "test_control test_losses test_diffusion_laws",
    ),
}
LAZY = (
    "mpmath",
    "sklearn.datasets",
    "sklearn.mixture",
    "scipy.stats",
    "torchdiffeq",
)  # imported where first used: here, once for all
# CPU seconds: after which a test is stopped while it is measured; for which it is taken then; that tests of one mutant take together
SLOW, STOPPED, MOST = 0.1, 3.0, 10.0
OPTIONS = (
    "-q -p no:cacheprovider -p no:xdist -p no:cov --capture=sys -W ignore::pytest.PytestAssertRewriteWarning -m".split()  # noqa: SIM905
)


def chosen(survey, *, only="", sample=None, seed=0, without=()):
    """The files, their trees and the mutants, of all or about ``sample`` of them, drawn by a digest, of every module as many as it has."""
    files = sorted(f for g in SURVEYS[survey][0].split() for f in (ROOT / "toyscore").glob(g))
    trees = {str(f): ast.parse(f.read_text()) for f in files}
    of = {file: list(mutants(os.path.relpath(file, ROOT / "toyscore"), tree)) for file, tree in trees.items()}
    some = 1.0 if sample is None else sample / sum(map(len, of.values()))

    def rank(mutant):
        return hashlib.sha256(f"{seed}:{name(mutant)}".encode()).digest()

    found = []
    for file, whole in of.items():
        kept = whole if sample is None else sorted(whole, key=rank)[: round(some * len(whole) + 0.5)]
        found += [(file, m) for m in kept if re.search(only, name(m)) and name(m) not in without]
    return trees, found


def forked(call):
    """A new process, and the pipe through which it sends what ``call`` returns."""
    read, write = os.pipe()
    if pid := os.fork():
        os.close(write)
        return pid, read
    try:
        with open(write, "wb") as pipe:
            pickle.dump(call(), pipe)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def answered(pid, read):
    with open(read, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return f"signal {os.WTERMSIG(status)}"  # mostly SIGXCPU: out of time
    if status:
        raise RuntimeError("a process failed: the fault is that of this file, not of a test")
    return pickle.loads(data)


def red(item):
    return any(report.failed for report in runtestprotocol(item, nextitem=None, log=False))


class TooSlowError(BaseException):
    pass


class Tracer:
    """Which functions of some files are called."""

    def __init__(self, files):
        self.files, self.called = files, set()

    def __call__(self, frame, event, _):
        if frame.f_code.co_filename in self.files:
            self.called.add((frame.f_code.co_filename, frame.f_code.co_qualname.replace(".<locals>", "")))


def batch(items, tracer):
    """(seconds, node id, functions, red) of tests, until one is stopped: what that one leaves behind is no place for others."""
    stopped, found = [], []

    def stop(*_):
        stopped.append(True)
        raise TooSlowError

    signal.signal(signal.SIGPROF, stop)
    for item in items:
        tracer.called, begun, failed = set(), time.process_time(), True
        try:
            signal.setitimer(signal.ITIMER_PROF, SLOW)
            sys.settrace(tracer)
            failed = red(item)
            signal.setitimer(signal.ITIMER_PROF, 0)
        except BaseException:  # what pytest makes of a stop in its own midst
            pass
        sys.settrace(None)
        if stopped:
            return [*found, (STOPPED, item.nodeid, tracer.called, False)]
        found.append((time.process_time() - begun, item.nodeid, tracer.called, failed))
    return found


def measured(items, tracer):
    """(seconds, node id, functions) of each test, the fastest first; the node ids of those that are red.

    A test that was stopped may call what any test of its file does.
    """
    found, items, whole = [], list(items), collections.defaultdict(set)
    while len(found) < len(items):
        rest = items[len(found) :]
        found += answered(*forked(lambda rest=rest: batch(rest, tracer)))
    for _, test, called, _ in found:
        whole[test.partition("::")[0]] |= called
    green = [
        (s, test, whole[test.partition("::")[0]] if s == STOPPED else called)
        for s, test, called, bad in found
        if not bad
    ]
    return sorted(green, key=lambda g: g[:2]), [test for _, test, _, bad in found if bad]


def first_red(items, order):
    """The first test of (seconds, node id) ... that fails, or None."""
    begun = time.process_time()
    for seconds, test in order:
        if test in items and time.process_time() - begun < MOST:
            limit = int(time.process_time() + 5 * seconds + 2)
            resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
            if red(items[test]):
                return test
    return None


class Session:
    """A plugin of pytest that calls a function of the collected tests, by node id, instead of running them."""

    def __init__(self, use):
        self.use, self.result = use, "the tests cannot be collected"

    def pytest_runtestloop(self, session):
        if not session.testsfailed:  # while they were collected
            self.result = self.use({item.nodeid: item for item in session.items})
        return True


def collected(files, use):
    session = Session(use)
    pytest.main([*OPTIONS, "not slow", *map(str, files)], [session])
    return session.result


def first_red_anew(order):
    """As ``first_red``, by tests that are imported again: what they made when they were imported has the mistake, too."""
    for module in [
        m for m, v in sys.modules.items() if (getattr(v, "__file__", None) or "").startswith(str(ROOT / "tests"))
    ]:
        del sys.modules[module]
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    for file in dict.fromkeys(test.partition("::")[0] for _, test in order):
        if found := collected([ROOT / file], lambda items: first_red(items, order)):
            return found
    return None


def functions():
    """All functions of the package that exist, also the wrapped and the inner ones, by file, qualified name and first line."""
    found = collections.defaultdict(list)
    for f in gc.get_objects():
        if type(f) is types.FunctionType and f.__code__.co_filename.startswith(str(ROOT / "toyscore")):
            found[f.__code__.co_filename, f.__code__.co_qualname, f.__code__.co_firstlineno].append(f)
    return found


def plant(file, new, live):
    for key, code in new.items():
        for f in live.get((file, *key), ()):
            if f.__code__ != code:
                f.__code__ = code


def survey(name_of_survey="core", *, tests=None, log=print, **options):
    """What killed each mutant, None where nothing did; the tests that are red without any; and how many tests took part."""
    trees, planted = chosen(name_of_survey, **options)
    for file in trees:
        importlib.import_module(os.path.relpath(file, ROOT)[:-3].replace("/", ".").removesuffix(".__init__"))
    for module in LAZY:
        importlib.import_module(module)
    tracer, killers = Tracer(set(trees)), {}

    def judge(items):
        sys.settrace(None)
        imported = tracer.called  # by the tests, while they were collected
        green, failed = measured(items.values(), tracer)
        live = functions()
        gc.freeze()  # what is shared with the processes stays shared
        for file, mutant in planted:
            key = (file, mutant.function)
            order = [(seconds, test) for seconds, test, called in green if key in called]

            def run(file=file, mutant=mutant, key=key, order=order):
                plant(file, codes(trees[file], file, mutant), live)
                return first_red(items, order) or (first_red_anew(order) if key in imported else None)

            killers[name(mutant)] = answered(*forked(run))
            log(f"{name(mutant)}  {killers[name(mutant)]}")
        return failed, len(green)

    sys.settrace(tracer)
    return killers, *collected(
        [f"{ROOT}/tests/{test}.py" for test in (tests or SURVEYS[name_of_survey][1]).split()], judge
    )


def table(killers, field):
    """Killed and planted, by a field of the names."""
    total = collections.Counter(mutant.split(":")[field] for mutant in killers)
    left = collections.Counter(mutant.split(":")[field] for mutant, killer in killers.items() if killer is None)
    return "".join(f"{total[k] - left[k]:5} of {total[k]:<5} {k}\n" for k in total)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--survey", choices=SURVEYS, default="core")
    parser.add_argument("--only", default="", help="a regular expression of names")
    parser.add_argument("--tests", help="files of tests, instead of those of the survey")
    parser.add_argument("--sample", type=int)
    parser.add_argument("--seed", type=int, default=0)
    args = vars(parser.parse_args())
    if args["sample"] is not None:  # those that are known to survive are not asked again
        args["without"] = tomllib.loads(SURVIVORS.read_text())
    killers, red, n_tests = survey(args.pop("survey"), log=lambda line: sys.stderr.write(line + "\n"), **args)
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "mutants.json").write_text(
        json.dumps({"tests": n_tests, "red": red, "killers": killers}, indent=1)
    )
    left = [mutant for mutant, killer in killers.items() if killer is None]
    words = (
        f"{len(killers) - len(left)} of {len(killers)} killed, {n_tests} tests; red without a mistake: {red or 'none'}"
    )
    sys.stdout.write("\n".join([table(killers, 0), table(killers, 2), words, "survivors:", *left, ""]))


if __name__ == "__main__":
    main()
