"""A checkpoint that is not what was saved is told from one that is: one error, with the file, the cause and the way out."""

import json
import os
import random
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from runs import said
from states import SEALED, SIGMAS, network, seal, state_at, steps, with_config
from toyscore import pretrained
from toyscore.models import EMA, MLP
from toyscore.train import CheckpointError, latest_checkpoint, load_checkpoint, save_checkpoint

FILES = [*SEALED, "SHA256SUMS"]


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["flip", "truncation"])
def test_damage_is_always_noticed(tmp_path, damage, measured):
    """2,000 flipped bits and 500 truncations over the three files: one clear error, naming file, cause and way out"""
    state = state_at(1)
    good, bad = (save_checkpoint(tmp_path, state | {"step": step}) for step in (1, 2))
    contents = {file.name: file.read_bytes() for file in bad.iterdir()}
    sizes = [len(c) for c in contents.values()]
    chance = random.Random(0)
    n = 2000 if damage == "flip" else 500
    for _ in range(n):
        name = chance.choices(list(contents), sizes)[0] if chance.random() < 0.5 else chance.choice(list(contents))
        content = bytearray(contents[name])
        if damage == "flip":
            place = chance.randrange(len(content))
            content[place] ^= 1 << chance.randrange(8)
        else:
            content = content[: chance.randrange(len(content))]
        (bad / name).write_bytes(content)
        with pytest.raises(CheckpointError) as error:
            load_checkpoint(tmp_path)
        (bad / name).write_bytes(contents[name])
        text = str(error.value)
        assert str(bad / name) in text
        assert "is damaged" in text
        assert f"the newest whole one is {good}: resume from that" in text
    assert load_checkpoint(tmp_path).state["step"] == 2
    measured.count("flipped bits, each noticed" if damage == "flip" else "truncations, each noticed", n)


def check_told(run, words):
    """By the library in two ways and by the command line in three: the error has the words, the code is 8."""
    for read in (load_checkpoint, pretrained.load):
        with pytest.raises(CheckpointError) as error:
            read(run)
        assert re.search(words, str(error.value)), str(error.value)
    for command in (
        ["sample", "--folder", run],
        ["train", "--folder", run, "--resume", "latest"],
        ["export", "--folder", run, "--to", run / "export"],
    ):
        code, text = said(*command)
        assert code == 8, text
        assert re.search(words, text), text
        assert text.startswith("toyscore: ")
        assert text.count("\n") == 1
        assert len(text) < 1000
        assert "Traceback" not in text


def emptied(path):
    path.write_bytes(b"")


def made_a_folder(path):
    path.unlink()
    path.mkdir()


def made_a_loop(path):
    path.unlink()
    path.symlink_to(path.name)


def made_a_pipe(path):
    path.unlink()
    os.mkfifo(path)


def made_endless(path):
    path.unlink()
    path.symlink_to("/dev/zero")


def swapped(path):
    shutil.copy(path.parent.parent / "step-00000035" / path.name, path)


# what is done to a file, and what the error says of it
BROKEN = {
    "emptied": (emptied, r"{file} is damaged: its 0 bytes"),
    "removed": (os.remove, r"{file} cannot be read: No such file"),
    "made a folder": (made_a_folder, r"{file} cannot be read: it is no file"),
    "made a link to itself": (made_a_loop, r"{file} cannot be read: Too many levels of symbolic links"),
    "made a pipe": (made_a_pipe, r"{file} cannot be read: it is no file"),
    "made a link to an endless file": (made_endless, r"{file} cannot be read: it is no file"),
    "swapped for an older one": (swapped, r"{file} is damaged: its \d+ bytes"),
}


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("way", BROKEN)
def test_a_broken_file_is_named_with_the_one_before(tmp_path, whole, file, way, measured):
    run = shutil.copytree(whole, tmp_path / "run")
    folder = run / "checkpoints" / "step-00000040"
    harm, words = BROKEN[way]
    harm(folder / file)
    before = f".*; the newest whole one is {folder.with_name('step-00000035')}: resume from that"
    check_told(run, words.format(file=folder / file) + before)
    measured.count("files broken in other ways, each told with the file and the one before")


@pytest.mark.slow
def test_a_folder_without_its_files_is_named_with_the_one_before(tmp_path, whole):
    run = shutil.copytree(whole, tmp_path / "run")
    folder = run / "checkpoints" / "step-00000040"
    for make in (folder.mkdir, folder.touch, lambda: folder.symlink_to(folder.name)):
        shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
        make()
        check_told(
            run, f"{folder}/tensors.safetensors cannot be read: .*the newest whole one is .*35: resume from that"
        )


@pytest.mark.slow
def test_other_files_beside_are_no_damage(tmp_path, whole):
    run = shutil.copytree(whole, tmp_path / "run")
    place = run / "checkpoints" / "step-00000040"
    (place / "notes.txt").write_text("mine")
    (place / "more").mkdir()
    (run / "checkpoints" / "step-00000099.old").mkdir()
    assert load_checkpoint(run).state["step"] == 40
    assert pretrained.load(run).about["step"] == 40


def changed(**values):
    return lambda about: about | values


def inner(group, **values):
    return lambda about: with_config(about, group, **values)


def data(**values):
    return lambda about: about | {"about": about["about"] | {"data": about["about"]["data"] | values}}


NO = r"is as it was written, but it is no checkpoint"
SAYS = r"does not (hold what its configuration says|say what made it): "
# what checkpoint.json is changed to, sealed with its sums, and what the error says
FOREIGN_FACTS = {
    "a newer format": (changed(format=9), r"checkpoint.json has format 9: this version reads 1"),
    "a format of another type": (changed(format=[1]), r"has format \[1\]: this version reads 1"),
    "a list": (lambda about: [], NO),
    "a word": (lambda about: "x", NO),
    "a number": (lambda about: 3, NO),
    "nothing": (lambda about: None, NO),
    "no keys": (lambda about: {}, NO),
    "a format alone": (lambda about: {"format": 1}, NO),
    "a step in words": (changed(step="ten"), NO + ".*its step must be a whole number"),
    "a step of true": (changed(step=True), NO),
    "a recipe of none": (changed(recipe=None), NO),
    "facts of none": (changed(about=None), NO),
    "facts in a list": (changed(about=["config"]), NO),
    "a network of no kind": (
        inner("network", kind="os.system"),
        SAYS + "network.kind = os.system: it must be one of",
    ),
    "a width in words": (inner("network", width="wide"), SAYS + "network.width = wide: it must be a whole number"),
    "another width": (inner("network", width=6), SAYS + r"\S+ has shape .*, and in the network \["),
    "a width of no weight": (inner("network", width=98), SAYS + "network.width gives 98, and no weight has"),
    "a width beyond memory": (inner("network", width=30_000), SAYS + "network.width gives 30000, and no weight has"),
    "levels beyond memory": (
        inner("noise", n_levels=10**10),
        SAYS + "noise.n_levels = 10000000000: it must be at most",
    ),
    "a level beyond all numbers": (inner("noise", sigma_max=float("inf")), SAYS + "noise.sigma_max = inf: it must be"),
    "a group in a word": (lambda about: inner("network")(about) | {"about": {"config": {"data": 1}}}, SAYS),
    "an event in words": (data(event="8x8"), SAYS + "data = .*8x8"),
    "an event of nothing": (data(event=[]), SAYS),
    "a mean that is no number": (data(mean=float("nan")), SAYS),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", FOREIGN_FACTS)
def test_what_is_sealed_but_no_checkpoint_is_told(tmp_path, whole, case, measured):
    run = shutil.copytree(whole, tmp_path / "run")
    place = run / "checkpoints" / "step-00000040"
    change, words = FOREIGN_FACTS[case]
    file = place / "checkpoint.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    seal(place)
    if words.startswith(SAYS):  # the state itself is one; that it does not fit is seen by who builds the network
        assert load_checkpoint(run).state["step"] == 40
        with pytest.raises(CheckpointError, match=words):
            pretrained.load(run)
        for command in (["sample", "--folder", run], ["train", "--folder", run, "--resume", "latest"]):
            code, text = said(*command)
            assert text.count("\n") == 1
            assert "Traceback" not in text
            assert code == 8 if command[0] == "sample" else code in (2, 8), text
    else:
        check_told(run, words)
    measured.count("foreign contents with right sums, each told")


# what the tensors are changed to
FOREIGN_TENSORS = {
    "a shape": lambda tensors: tensors | {n: torch.zeros(2, 2) for n in tensors if n.endswith("end_conv.weight")},
    "a name more": lambda tensors: tensors | {"model.average.more": torch.zeros(1), "model.model.more": torch.zeros(1)},
    "a name less": lambda tensors: {n: v for n, v in tensors.items() if not n.endswith("end_conv.weight")},
    "nothing": lambda tensors: {},
    "no moments": lambda tensors: {n: v for n, v in tensors.items() if not n.startswith("optimizer")},
    "moments of another shape": lambda tensors: (
        tensors | {n: torch.zeros(3) for n in tensors if n.startswith("optimizer.0.exp")}
    ),
    "moments of another kind": lambda tensors: tensors | {"optimizer.0.momentum": torch.zeros(3)},
    "moments without a number": lambda tensors: tensors | {"optimizer": torch.zeros(3)},
}


@pytest.mark.slow
@pytest.mark.parametrize("case", FOREIGN_TENSORS)
def test_tensors_of_another_network_are_told(tmp_path, whole, case, measured):
    """With right names, right sums and another content"""
    run = shutil.copytree(whole, tmp_path / "run")
    place = run / "checkpoints" / "step-00000040"
    tensors = FOREIGN_TENSORS[case](load_file(place / "tensors.safetensors"))
    save_file(tensors, place / "tensors.safetensors")
    seal(place)
    commands = [["train", "--folder", run, "--resume", "latest"]]
    if "moments" not in case:  # which no one needs who does not go on
        commands.append(["sample", "--folder", run])
        with pytest.raises(CheckpointError, match="does not hold what its configuration says"):
            pretrained.load(run)
    for command in commands:
        code, text = said(*command)
        assert code == 8, text
        assert text.count("\n") == 1
        assert str(place) in text
    measured.count("foreign contents with right sums, each told")


def test_missing_and_foreign_files_are_named(tmp_path):
    path = save_checkpoint(tmp_path, state_at(1))
    (path / "tensors.safetensors").rename(path / "elsewhere")
    with pytest.raises(
        CheckpointError, match=r"tensors.safetensors cannot be read: No such file.*no other one is whole"
    ):
        load_checkpoint(path)
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        latest_checkpoint(tmp_path / "nowhere")
    with pytest.raises(
        CheckpointError, match=r"nowhere holds no checkpoint: pass a run folder, its checkpoints, or a step"
    ):
        load_checkpoint(tmp_path / "nowhere")
    (path / "elsewhere").rename(path / "tensors.safetensors")
    (path / "checkpoint.json").write_text("[")
    seal(path)
    with pytest.raises(CheckpointError, match=NO):
        load_checkpoint(path)


def test_a_state_of_another_network_is_refused(tmp_path):
    path = save_checkpoint(tmp_path, state_at(3))
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="belongs to another network"):
        steps(EMA(MLP(width=5, sigmas=SIGMAS), 0.9), state=load_checkpoint(path).state)
    state = load_checkpoint(path).state
    state["optimizer"][0]["exp_avg"] = torch.zeros(3)
    with pytest.raises(ValueError, match=r"moments of parameter 0 are .*they must be Adam's, of shape"):
        steps(network(), state=state)
