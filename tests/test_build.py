"""Every key of a configuration reaches what it is about."""

import json
from dataclasses import fields, replace
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
import yaml

from toyscore import build, pretrained
from toyscore.build import build_levels, build_network, draw_samples, n_calls, quicken
from toyscore.cli import training
from toyscore.config import (
    GROUPS,
    READERS,
    Config,
    ConfigError,
    Data,
    Network,
    Noise,
    Sampling,
    Training,
    as_read,
    check,
    check_used,
    told,
)
from toyscore.train import CheckpointError, save_checkpoint

FACTS = {"event": [1, 8, 8], "mean": 0.2, "variance": 0.03}


def test_the_recipe_reaches_fit(tmp_path, monkeypatch):
    seen = {}

    def stop(model, data, loss, **options):
        seen.update(options, start=torch.random.initial_seed())
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "fit", stop)
    config = Config(
        network=Network(width=2), training=Training(7, 6, 3, 0.5, 0.25, precision="bfloat16"), seed=5, device="cpu"
    )
    with pytest.raises(KeyboardInterrupt):
        training.train(config, tmp_path / "run")
    assert seen == {
        "n_steps": 7,
        "batch_size": 6,
        "n_shards": 3,
        "lr": 0.5,
        "clip": 0.25,
        "seed": 5,
        "autocast": torch.bfloat16,
        "group": None,
        "state": None,
        "start": 5,
    }


def test_the_laws_and_the_data_reach_the_loss_and_the_network():
    network = build.build_network(Config(network=Network(width=2), training=Training(ema=None)), FACTS)
    assert (float(network.data_mean), float(network.data_variance)) == pytest.approx((0.2, 0.03))
    seen = []

    def score(x, sigma):
        seen.append(sigma)
        return torch.zeros_like(x)

    noise = Noise(1e6, 1e-6, 2, "log_normal", 2.0, 0.1)
    build.build_loss(noise)(score, torch.zeros(4000, 1), generator=torch.Generator().manual_seed(0))
    assert float(seen[0].log().mean()) == pytest.approx(2.0, abs=5 * 0.1 / 4000**0.5)
    assert not build.build_data(Data(dequantise=False)).dequantise


def test_the_plan_reaches_the_sampler(monkeypatch):
    seen = {}
    monkeypatch.setattr(
        build, "annealed_langevin", lambda s, x, sigmas, **o: iter(seen.update(o, x=x, sigmas=sigmas) or [])
    )
    config = Config(sampling=Sampling(3.0, 0.1, 4, 7, 0.2, "normal", True, True))

    def draw(seed):
        return next(build.sampling_chain(torch.nn.Linear(1, 1), config, FACTS | {"mean": 50.0}, 4000, seed))

    x = draw(1)
    assert (seen["step_size"], seen["n_steps_each"], seen["denoise"], seen["clamp"], len(seen["sigmas"])) == (
        0.2,
        7,
        True,
        (0.0, 1.0),
        4,
    )
    assert (float(x.mean()), float(x.std())) == pytest.approx((50.0, 3.0), abs=0.05)
    assert not torch.equal(x, draw(2))


def test_quick_networks_are_the_same_networks(monkeypatch):
    """Laid out and compiled in place: what is trained is compiled, its average is not, weights keep names and values"""
    calls = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: calls.append(self))
    plain = build_network(Config(network=Network(width=4)), FACTS)
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    assert quicken(plain, channels_last=True, compile=True) is plain
    assert calls == [plain.model]
    after = plain.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert after["model.body.res1.0.conv1.weight"].is_contiguous(memory_format=torch.channels_last)
    quicken(plain.average, compile=True)
    assert calls[-1] is plain.average
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(ConfigError, match=r"compile = true: torch.compile needs a C\+\+ compiler, .* install g\+\+"):
        quicken(plain, compile=True)


@pytest.mark.parametrize("kind", ["continuous", pytest.param("ncsn", marks=pytest.mark.slow)])
def test_networks_compile_whole(kind):
    """One graph without a break, for sigma as samplers pass it; the same scores"""
    config = Config(network=Network(kind=kind, width=2), training=Training(ema=None))
    network = build_network(config, FACTS).eval()
    x, sigma = torch.rand(3, 1, 8, 8), build_levels(config.noise)[3]
    found = torch.compile(network, backend="eager", fullgraph=True)(x, sigma)
    assert torch.allclose(found, network(x, sigma), rtol=1e-4, atol=1e-5)


def test_a_chain_calls_as_often_as_is_said():
    config = Config(network=Network(width=2), noise=Noise(n_levels=3), sampling=Sampling(n_steps_each=4))
    calls = []
    network = build_network(replace(config, training=Training(ema=None)), FACTS)
    network.register_forward_hook(lambda *_: calls.append(1))
    draw_samples(network, config, FACTS, 2, 0)
    assert len(calls) == n_calls(config) == 13


def test_numbers_of_numpy_and_paths_become_plain(tmp_path):
    """So that JSON and YAML can hold them; what they cannot be is told as they are"""
    noise = Noise(sigma_max=np.float32(2), sigma_min=np.float64(0.5), n_levels=np.int64(3))
    config = Config(Data(np.str_("folder"), path=tmp_path), noise=noise, training=Training(lr=np.float32(0.5)))
    check(config)
    same = Config(Data("folder", path=str(tmp_path)), noise=Noise(2.0, 0.5, 3), training=Training(lr=0.5))
    assert json.dumps(config.asdict()) == json.dumps(same.asdict())
    assert Config.fromdict(yaml.safe_load(yaml.safe_dump(config.asdict()))) == same
    for wrong, words in ((np.float32(1.5), "= 1.5: it must be a whole number"), (np.array([1]), r"= array\(\[1\]\)")):
        with pytest.raises(ConfigError, match=f"noise.n_levels {words}"):
            check(Config(noise=Noise(n_levels=wrong)))


def test_an_event_of_another_network_is_told(tmp_path):
    """In a checkpoint, where anybody may have written it"""
    state = {"step": 1, "recipe": {}, "model": build_network(Config(), FACTS).state_dict(), "optimizer": []}
    save_checkpoint(tmp_path, state, {"config": Config().asdict(), "data": FACTS | {"event": [4]}})
    with pytest.raises(
        CheckpointError, match=r"data's event is \[4\], and network.kind = continuous takes \[C, H, W\]"
    ):
        pretrained.load(tmp_path)


@pytest.mark.parametrize(
    ("data", "kind", "event"), [(Data("toy", path="x", crop=5), "mlp", [2]), (Data(), "continuous", [1, 8, 8])]
)
def test_what_nothing_reads_keeps_no_network_from_being_loaded(tmp_path, data, kind, event):
    """More levels than weights, a depth for an image network, a crop of a toy: earlier versions trained with all of that"""
    noise = Noise(n_levels=100_000, law="log_uniform")
    depth = 1 if kind == "mlp" else 1_000_000
    config = Config(data, Network(kind, width=2, depth=depth), noise, sampling=Sampling(n_levels=2))
    check(config)
    facts = {"event": event, "mean": 0.5, "variance": 0.1}
    weights = build_network(as_read(config), facts).state_dict()
    state = {"step": 1, "recipe": {}, "model": weights, "optimizer": []}
    save_checkpoint(tmp_path, state, {"config": config.asdict(), "data": facts})
    loaded = pretrained.load(tmp_path).config
    check_used(loaded)
    read = Config(Data(data.name), Network(kind, width=2, depth=depth if kind == "mlp" else 3), noise)
    assert loaded == replace(read, sampling=config.sampling)


CHOICES = {
    "data.name": get_args(get_type_hints(Data)["name"])[0],  # or null, which is one of them
    "network.kind": get_type_hints(Network)["kind"],
    "noise.law": get_type_hints(Noise)["law"],
}


@pytest.mark.parametrize(
    ("chooser", "choice"), [(key, choice) for key, kinds in CHOICES.items() for choice in get_args(kinds)]
)
def test_the_table_of_readers_is_what_is_read(chooser, choice, monkeypatch):
    """Every key that building looks at, and no other: a key that comes later must take its place in the table"""
    group, own = chooser.split(".")
    kind = GROUPS[group]
    seen = set()

    def looked_at(self, name):
        if name in keys:
            seen.add(name)
        return object.__getattribute__(self, name)

    values = replace(Data(choice, path="x"), size=8) if group == "data" else kind(**{own: choice})
    keys = {f.name for f in fields(kind)} - {own}
    pictures = build.data.Images(np.zeros((2, 3, 8, 8), np.uint8))
    for name in ("image_folder", "digits", "mnist5k", "cifar10", "mnist", "photos"):
        monkeypatch.setattr(build.data, name, lambda *_, **__: pictures)
    monkeypatch.setattr(build, "check_used", lambda _: None)
    monkeypatch.setattr(kind, "__getattribute__", looked_at, raising=False)
    if group == "data":
        build.build_data(values)
        build.event_of(values)
    elif group == "network":
        event = [2] if choice == "mlp" else [1, 8, 8]
        build_network(Config(network=values), FACTS | {"event": event})
    else:
        build_levels(values)
        build.build_loss(values)
    monkeypatch.undo()
    unread = {key.split(".")[1] for key, (by, readers) in READERS.items() if by == chooser and choice not in readers}
    assert keys - seen == unread


@pytest.mark.parametrize("key", READERS)
def test_what_nothing_reads_is_refused_where_it_is_built(key):
    """By name, in Python, too, with the choices that would read it; at its default it is as if left out"""
    (group, name), (chooser, readers) = key.split("."), READERS[key]
    value = {"toy": "moons", "path": "x", "size": 9, "crop": 9, "flip": True, "dequantise": False, "depth": 9}.get(
        name, 0.5
    )
    other = "toy" if key in ("data.flip", "data.dequantise") else "digits" if group == "data" else None
    values = GROUPS[group](**{name: value} | ({"name": other} if other else {}))
    config = replace(Config(), **{group: values})
    words = (
        rf"^{key} = {told(value)}: {chooser} = \w+ does not read it, only {' or '.join(readers)}; leave {key} out, or"
    )
    builders = {"data": build.build_data, "network": lambda _: build_network(config, FACTS), "noise": build.build_loss}
    with pytest.raises(ConfigError, match=words):
        builders[group](values)
    with pytest.raises(ConfigError, match=words):
        check_used(config)
    assert as_read(config) == replace(Config(), **{group: GROUPS[group](**{"name": other} if other else {})})
    check_used(Config())
    plain = as_read(config)
    if getattr(GROUPS[group](), name) is None:  # taken back
        check_used(plain, {key})
    else:
        with pytest.raises(ConfigError, match=rf"^{key} = "):  # said on purpose, though it is the default
            check_used(plain, {key})


@pytest.mark.parametrize("name", ["digits", "photos"])
def test_sets_are_mirrored_as_they_were(name, monkeypatch):
    """Photographs are and digits are not, unless told; so of the sets that are fetched"""
    for config, own in ((Data(name), name == "photos"), (Data(name, flip=True), True), (Data(name, flip=False), False)):
        assert build.build_data(config).flip == config.mirrored == own
    assert Data("cifar10").mirrored
    assert not Data("mnist").mirrored
    assert not Data("folder", path="x").mirrored
    assert build.build_data(Data(name)).flip == getattr(build.data, name)().flip


def test_a_path_implies_a_folder():
    assert Data().name == "digits"
    assert Data(path="x").name == "folder"
    with pytest.raises(ConfigError, match=r"data.path = x: data.name = digits does not read it, only folder"):
        check_used(Data("digits", path="x"))


def test_folders_were_mirrored_before_they_could_be_told():
    """A whole configuration that was kept without the key says what it meant"""
    for name, meant in (("folder", True), ("cifar10", None), ("digits", None)):
        kept = Config(Data(name, path="x")).asdict()
        del kept["data"]["flip"]
        assert Config.fromdict(kept).data.flip is meant
    assert Config.fromdict(Config(Data(path="x")).asdict()).data.flip is None
