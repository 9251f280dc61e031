"""A checkpoint that is not what was saved is refused with one error that names the file, the cause and the way out."""

import hashlib
import io
import json
import os
import pickle
import random
import re
import shutil
import struct

import pytest
import torch
from safetensors.torch import load, save

from runs import Touch, said
from states import SEALED, SIGMAS, network, seal, state_at, steps, with_config
from toyscore import pretrained
from toyscore.models import EMA, MLP
from toyscore.train import CheckpointError, latest_checkpoint, load_checkpoint, save_checkpoint

FILES = [*SEALED, "SHA256SUMS"]


@pytest.mark.parametrize(("damage", "n"), [("flip", 2000), ("truncation", 500)])
def test_damage_is_always_noticed(tmp_path, damage, n):
    """Flipped bits and truncations over the three files."""
    state = state_at(1)
    good, bad = (save_checkpoint(tmp_path, state | {"step": step}) for step in (1, 2))
    contents = {file.name: file.read_bytes() for file in bad.iterdir()}
    chance = random.Random(0)
    for _ in range(n):
        sizes = [len(c) for c in contents.values()] if chance.random() < 0.5 else None
        (name,) = chance.choices(list(contents), sizes)
        content = bytearray(contents[name])
        if damage == "flip":
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
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


@pytest.fixture
def run(tmp_path, whole):
    """A copy of a run, to be damaged."""
    return shutil.copytree(whole, tmp_path / "run")


COMMANDS = {"sample": [], "train": ["--resume", "latest"], "export": ["--to", "export"]}


def check_refused(run, words, readers=(load_checkpoint, pretrained.load), codes=(8,), commands=COMMANDS):
    """By the library in two ways and by the command line in three: the error has the words, the code is 8."""
    for read in readers:
        with pytest.raises(CheckpointError) as error:
            read(run)
        assert re.search(words, str(error.value)), str(error.value)
    for command in commands:
        code, text = said(command, "--folder", run, *COMMANDS[command])
        assert code in codes, text
        assert code == 2 or re.search(words, text), text
        assert text.startswith("toyscore: ")
        assert text.count("\n") == 1
        assert len(text) < 1000
        assert "Traceback" not in text


def older(path):
    shutil.copy(path.parent.with_name("step-00000035") / path.name, path)


UNREADABLE = "{file} cannot be read: "
# what is done to a file, and what the error reports, once it is gone
BROKEN = {
    "removed": (lambda path: None, UNREADABLE + "No such file"),
    "a folder": (os.mkdir, UNREADABLE + "it is no file"),
    "a link to itself": (lambda path: path.symlink_to(path.name), UNREADABLE + "Too many levels of sym"),
    "a pipe": (os.mkfifo, UNREADABLE + "it is no file"),
    "a link to an endless file": (lambda path: path.symlink_to("/dev/zero"), UNREADABLE + "it is no file"),
    "emptied": (lambda path: path.touch(), "{file} is damaged: its 0 bytes"),
    "an older one": (older, r"{file} is damaged: its \d+ bytes"),
}


@pytest.mark.parametrize("way", BROKEN)
def test_a_broken_file_is_named_with_the_one_before(run, way):
    folder = run / "checkpoints" / "step-00000040"
    harm, words = BROKEN[way]
    for file in FILES:
        shutil.copytree(folder, run / "kept")
        (folder / file).unlink()
        harm(folder / file)
        before = f".*; the newest whole one is {folder.with_name('step-00000035')}: resume from that"
        check_refused(run, words.format(file=folder / file) + before)
        shutil.rmtree(folder)
        (run / "kept").rename(folder)


def test_a_folder_without_its_files_is_named_with_the_one_before(run):
    folder = run / "checkpoints" / "step-00000040"
    words = f"{folder}/tensors.safetensors cannot be read: .*the newest whole one is .*35: resume from that"
    for make in (folder.mkdir, folder.touch, lambda: folder.symlink_to(folder.name)):
        shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
        make()
        check_refused(run, words)


def changed(**values):
    return lambda about: about | values


def config(group, **values):
    return lambda about: with_config(about, group, **values)


def data(**values):
    return lambda about: about | {"about": about["about"] | {"data": about["about"]["data"] | values}}


class Bomb:
    """Unpickled, it leaves a file."""

    def __reduce__(self):
        return os.system, ("touch marker",)


PICKLE = pickle.dumps(Bomb())


def test_the_bomb_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(PICKLE)
    assert (tmp_path / "marker").exists()


def torch_saved():
    buffer = io.BytesIO()
    torch.save({"model.weight": Bomb()}, buffer)
    return buffer.getvalue()


def tensor(shape, begin, end, dtype="F32"):
    """A file of one tensor, of 64 bytes."""
    text = json.dumps({"a": {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(64)


NO = "is as it was written, but it is no checkpoint"
SAYS = "does not (hold what its configuration says|say what made it): "
# what checkpoint.json becomes, as bytes or from the facts, sealed with its sums as an attacker would; and what the error reports
FACTS = {
    "a newer format": (changed(format=9), "checkpoint.json has format 9: this version reads 1"),
    "a format of another type": (changed(format=[1]), r"has format \[1\]: this version reads 1"),
    "nothing": (b"null", NO),
    "a format alone": (b'{"format": 1}', NO),
    "a pickle": (PICKLE, NO),
    "depth without end": (b'{"format": 1, "about": ' + b'{"a":' * 200_000, NO),
    "a million digits": (b'{"format": 1, "step": ' + b"9" * 1_000_000 + b"}", NO),
    "a step in words": (changed(step="ten"), NO + ".*its step must be a whole number"),
    "a class": (changed(__class__="os.system", step={"__reduce__": ["os.system"]}), NO),
    "a recipe of none": (changed(recipe=None), NO),
    "facts of none": (changed(about=None), NO),
    "a network of no kind": (config("network", kind="os.system"), SAYS + "network.kind = os.system: it must be one of"),
    "code": (config("network", kind="__import__('os').system('touch marker')"), SAYS + "network.kind = __import__"),
    "a key to the class": (config("network", __class__="os.system"), SAYS + "network.__class__ is not a key"),
    "a width in words": (config("network", width="wide"), SAYS + "network.width = wide: it must be a whole number"),
    "another width": (config("network", width=11), SAYS + r"\S+ has shape .*, and in the network \["),
    "a width of no weight": (config("network", width=98), SAYS + "network.width gives 98, and no weight has"),
    "a depth beyond memory": (config("network", kind="mlp", depth=10**9), SAYS),
    "levels beyond memory": (config("noise", n_levels=10**10), SAYS + "noise.n_levels = 10000000000: it must"),
    "a group in a word": (lambda about: about | {"about": {"config": {"data": 1}}}, SAYS),
    "an event in words": (data(event="8x8"), SAYS + "data = .*8x8"),
    "a mean that is no number": (data(mean=float("nan")), SAYS),
}


def sealed(run, name, change, decode, encode):
    """The newest checkpoint, of which a file was changed and the sums were made to agree."""
    place = run / "checkpoints" / "step-00000040"
    file = place / name
    file.write_bytes(change if isinstance(change, bytes) else encode(change(decode(file.read_bytes()))))
    seal(place)
    return place


@pytest.mark.slow
@pytest.mark.usefixtures("harmless")
@pytest.mark.parametrize("case", FACTS)
def test_sealed_facts_of_no_checkpoint_are_refused(run, case):
    change, words = FACTS[case]
    sealed(run, "checkpoint.json", change, json.loads, lambda about: json.dumps(about).encode())
    if words.startswith(SAYS):  # the state itself is one; that it does not fit is seen when the network is built
        assert load_checkpoint(run).state["step"] == 40
        check_refused(run, words, [pretrained.load], commands=["sample"])
        check_refused(run, "", [], codes=(2, 8), commands=["train"])
    else:
        check_refused(run, words)


# what the tensors become, as bytes or from those that were there
TENSORS = {
    "a pickle": PICKLE,
    "a file of torch.save": torch_saved(),
    "a header without end": struct.pack("<Q", 2**63) + b"{}",
    "a header of a gigabyte": struct.pack("<Q", 2**30) + b"{}",
    "a deep header": struct.pack("<Q", 500_000) + b'{"a":' * 100_000,
    "offsets below zero": tensor([4], -16, 0),
    "offsets beyond the end": tensor([4], 2**40, 2**40 + 16),
    "a shape beyond memory": tensor([2**62, 2**62], 0, 64),
    "another shape than its bytes": tensor([2**40], 0, 64),
    "a type that runs": tensor([16], 0, 64, "os.system"),
    "no bytes": b"",
    "a shape": lambda tensors: tensors | {n: torch.zeros(3, 3) for n in tensors if n.endswith("layers.3.weight")},
    "a name more": lambda tensors: tensors | {"model.average.more": torch.zeros(1), "model.model.more": torch.zeros(1)},
    "a name less": lambda tensors: {n: v for n, v in tensors.items() if not n.endswith("layers.3.weight")},
    "no moments": lambda tensors: {n: v for n, v in tensors.items() if not n.startswith("optimizer")},
    "moments of another shape": lambda t: t | {n: torch.zeros(3) for n in t if n.startswith("optimizer.0.exp")},
    "moments of another kind": lambda tensors: tensors | {"optimizer.0.momentum": torch.zeros(3)},
    "moments without a number": lambda tensors: tensors | {"optimizer": torch.zeros(3)},
}


@pytest.mark.slow
@pytest.mark.usefixtures("harmless")
@pytest.mark.parametrize("case", TENSORS)
def test_sealed_tensors_of_another_network_are_refused(run, case):
    place = sealed(run, "tensors.safetensors", TENSORS[case], load, save)
    if isinstance(TENSORS[case], bytes):
        check_refused(run, NO)
    else:
        check_refused(run, str(place), [], commands=["train"])
        if "moments" not in case:  # which nobody needs who does not go on
            words = f"{place} does not hold what its configuration says"
            check_refused(run, words, [pretrained.load], commands=["sample"])


@pytest.mark.usefixtures("harmless")
@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "$(touch marker)", "tensors.safetensors\0x"])
def test_names_in_the_sums_are_not_opened(run, name):
    sums = run / "checkpoints" / "step-00000040" / "SHA256SUMS"
    (run / "secret").write_text("mine")
    sums.write_text(f"{hashlib.sha256(b'mine').hexdigest()}  {name}\n{sums.read_text().splitlines()[1]}\n")
    opened = set()
    with Touch("", lambda event, args: event == "open" and opened.add(os.path.abspath(os.fsdecode(args[0])))):
        check_refused(run, "SHA256SUMS", [load_checkpoint], commands=[])
    assert str(sums) in opened
    assert not {os.path.abspath(name), os.path.abspath(sums.parent / name)} & opened


@pytest.mark.usefixtures("harmless")
def test_other_files_next_to_it_are_left_alone(run):
    place = run / "checkpoints" / "step-00000040"
    (place / "more").mkdir()
    (run / "checkpoints" / "step-00000099.old").mkdir()
    code = b"import os; os.system('touch marker')"
    for name, content in {"model.pt": PICKLE, "__init__.py": code, "sitecustomize.py": code, "a.txt": b""}.items():
        for folder in (place, run):
            (folder / name).write_bytes(content)
    assert load_checkpoint(run).state["step"] == 40
    assert pretrained.load(run).about["step"] == 40


def test_missing_and_foreign_files_are_named(tmp_path):
    path = save_checkpoint(tmp_path, state_at(1))
    (path / "tensors.safetensors").rename(path / "elsewhere")
    with pytest.raises(
        CheckpointError, match=r"tensors.safetensors cannot be read: No such file.*no other one is whole"
    ):
        load_checkpoint(path)
    nowhere = "nowhere holds no checkpoint: "
    with pytest.raises(CheckpointError, match=nowhere + "nothing to go on from"):
        latest_checkpoint(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=nowhere + "pass a run folder, its checkpoints, or a step"):
        load_checkpoint(tmp_path / "nowhere")


def test_a_state_of_another_network_is_refused(tmp_path):
    path = save_checkpoint(tmp_path, state_at(3))
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="belongs to another network"):
        steps(EMA(MLP(width=5, sigmas=SIGMAS), 0.9), state=load_checkpoint(path).state)
    state = load_checkpoint(path).state
    state["optimizer"][0]["exp_avg"] = torch.zeros(3)
    with pytest.raises(ValueError, match=r"moments of parameter 0 are .*they must be Adam's, of shape"):
        steps(network(), state=state)
