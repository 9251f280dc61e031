"""Sets of images: what is in them, how they are sampled, and where they come from."""

import gzip
import hashlib
import http.server
import io
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from helpers import seeded
from toyscore import data
from toyscore.data import files, folders, named


@pytest.fixture
def served(tmp_path):
    """A folder, and its address on a server of this machine."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=folder)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def test_dequantised_values_are_uniform_within_their_level():
    """Every level of q covers 1/q of [0, 1]; flooring gives the whole numbers back"""
    values = np.arange(17, dtype=np.uint8).reshape(17, 1, 1, 1)
    found = data.Images(values, n_levels=17)
    x = found.sample(20_000, generator=seeded())
    assert x.dtype == torch.float32
    assert 0 <= float(x.min()) < float(x.max()) <= 1
    inside = (x * 17) % 1
    assert float(inside.mean()) == pytest.approx(0.5, abs=5 * 12**-0.5 / 20_000**0.5)
    levels = (x * 17).floor().flatten().long().clamp(max=16)
    shares = torch.bincount(levels, minlength=17) / 20_000
    assert torch.allclose(shares, torch.full((17,), 1 / 17), atol=5 * (1 / 17 / 20_000) ** 0.5)
    plain = data.Images(values, n_levels=17, dequantise=False).sample(100, generator=seeded())
    assert torch.allclose((plain * 16).round(), plain * 16, atol=1e-5)
    assert float(plain.max()) == 1


def test_moments_are_those_of_the_samples():
    for found in (data.digits(), data.digits(dequantise=False)):
        mean, variance = found.moments
        x = found.sample(20_000, generator=seeded()).double()
        images = x.flatten(1)
        assert mean == pytest.approx(float(x.mean()), abs=5 * float(images.mean(1).std()) / 20_000**0.5)
        squares = (images - mean).square().mean(1)
        assert variance == pytest.approx(float(squares.mean()), abs=5 * float(squares.std()) / 20_000**0.5)
    mean, variance = data.photos().moments
    assert 0.3 < mean < 0.5
    assert 0.05 < variance < 0.2


def test_a_flip_mirrors_half_of_the_images_left_to_right():
    values = np.zeros((1, 1, 2, 3), np.uint8)
    values[0, 0, 0, 0] = 255
    x = data.Images(values, flip=True, dequantise=False).sample(4000, generator=seeded())
    assert float(x[:, 0, 0, 0].mean()) == pytest.approx(0.5, abs=5 * 0.5 / 4000**0.5)
    assert torch.equal(x[:, 0, 0, 0] + x[:, 0, 0, 2], torch.ones(4000))
    assert float(x[:, 0, 1].sum() + x[:, 0, :, 1].sum()) == 0


def test_sampling_draws_from_its_generator_alone():
    for found in (data.digits(), data.photos(8)):
        before = torch.get_rng_state()
        a, b = (found.sample(5, generator=seeded(3)) for _ in range(2))
        assert torch.equal(a, b)
        assert not torch.equal(a, found.sample(5, generator=seeded(4)))
        assert torch.equal(before, torch.get_rng_state())


def test_labels_go_with_their_images():
    found = data.digits("train")
    x, labels = found.sample_labelled(50, generator=seeded(1))
    assert torch.equal(x, found.sample(50, generator=seeded(1)))
    means = torch.stack([found.tensor()[torch.from_numpy(found.labels == k)].mean(0) for k in range(10)])
    nearest = (x[:, None] - means).square().sum((2, 3, 4)).argmin(1)
    assert float((nearest == labels).double().mean()) > 0.75


def test_the_parts_of_a_set_are_apart_and_complete():
    whole, train, held_out = (data.digits(part) for part in ("all", "train", "held-out"))
    assert (len(whole), len(train), len(held_out)) == (1797, 1437, 360)
    assert np.array_equal(np.sort(np.concatenate([train.labels, held_out.labels])), np.sort(whole.labels))
    assert np.bincount(held_out.labels).min() > 25
    assert np.array_equal(held_out.values, whole.values[::5])


def test_five_thousand_digits_of_mnist():
    found = data.mnist5k()
    assert found.event == (1, 28, 28)
    assert np.bincount(found.labels).tolist() == [500] * 10
    assert found.values.max() == 255


def test_photographs_are_cropped_evenly():
    photo = np.arange(40, dtype=np.uint8).reshape(1, 5, 8)
    found = data.Crops([photo], 4, flip=False, dequantise=False)
    x = (found.sample(4000, generator=seeded()) * 255).round().long()
    corners, counts = torch.unique(x[:, 0, 0, 0], return_counts=True)
    assert corners.tolist() == [0, 1, 2, 3, 4, 8, 9, 10, 11, 12]
    assert torch.allclose(counts / 4000, torch.full((10,), 0.1), atol=5 * (0.09 / 4000) ** 0.5)
    offset = torch.arange(4)[:, None] * 8 + torch.arange(4)
    assert torch.equal(x[:, 0], x[:, 0, :1, :1] + offset)


def cifar_archive(n=3):
    """An archive as CIFAR-10's, of n images a batch: label, then red, green and blue planes"""
    generator = np.random.default_rng(0)
    blob, batches = io.BytesIO(), {}
    with tarfile.open(fileobj=blob, mode="w:gz") as archive:
        for name in [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]:
            rows = generator.integers(0, 256, (n, 3073), dtype=np.uint8)
            rows[:, 0] %= 10
            batches[name] = rows
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = rows.size
            archive.addfile(member, io.BytesIO(rows.tobytes()))
    return blob.getvalue(), batches


def test_cifar10_is_read_from_its_binary_files_once(tmp_path, served, monkeypatch):
    folder, address = served
    content, batches = cifar_archive()
    (folder / "cifar-10-binary.tar.gz").write_bytes(content)
    monkeypatch.setattr(named, "_CIFAR", (address + "cifar-10-binary.tar.gz", sha256(content)))
    found = data.cifar10(folder=tmp_path)
    assert (len(found), found.event, found.flip) == (15, (3, 32, 32), True)
    row = batches["data_batch_2.bin"][1]
    assert found.labels[4] == row[0]
    assert np.array_equal(found.values[4].reshape(-1), row[1:])
    assert len(data.cifar10("held-out", folder=tmp_path)) == 3
    assert len(data.cifar10("all", folder=tmp_path)) == 18
    (folder / "cifar-10-binary.tar.gz").unlink()
    (tmp_path / "cifar-10-binary.tar.gz").unlink()
    again = data.cifar10(folder=tmp_path)  # from the array, which is mapped into memory
    assert isinstance(again.values, np.memmap)
    assert np.array_equal(again.values, found.values)
    assert again.sample(2, generator=seeded()).shape == (2, 3, 32, 32)


def test_mnist_is_read_from_its_idx_files(tmp_path, served, monkeypatch):
    folder, address = served
    sums, generator = {}, np.random.default_rng(0)
    images = {half: generator.integers(0, 256, (n, 28, 28), dtype=np.uint8) for half, n in (("train", 4), ("t10k", 2))}
    for half, values in images.items():
        for kind, array in (("images-idx3", values), ("labels-idx1", np.arange(len(values), dtype=np.uint8))):
            name = f"{half}-{kind}-ubyte.gz"
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            content = gzip.compress(header + array.tobytes(), mtime=0)
            (folder / name).write_bytes(content)
            sums[name] = sha256(content)
    monkeypatch.setattr(named, "_MNIST", sums)
    monkeypatch.setattr(named, "_MNIST_URL", address)
    found = data.mnist(folder=tmp_path)
    assert np.array_equal(found.values[:, 0], images["train"])
    assert found.labels.tolist() == [0, 1, 2, 3]
    assert len(data.mnist("held-out", folder=tmp_path)) == 2
    assert len(data.mnist("all", folder=tmp_path)) == 6


def test_another_file_than_expected_is_refused(tmp_path, served, monkeypatch):
    folder, address = served
    (folder / "cifar-10-binary.tar.gz").write_bytes(b"not it")
    monkeypatch.setattr(named, "_CIFAR", (address + "cifar-10-binary.tar.gz", "0" * 64))
    with pytest.raises(data.DownloadError, match=r"cifar-10-binary.tar.gz gave another file than expected.*SHA-256"):
        data.cifar10(folder=tmp_path)
    monkeypatch.setattr(named, "_CIFAR", ("http://127.0.0.1:9/cifar-10-binary.tar.gz", "0" * 64))
    with pytest.raises(data.DownloadError, match=r"cannot be fetched \(ConnectionError\): check the network, or put"):
        data.cifar10(folder=tmp_path)
    assert not list(tmp_path.glob("*.tar.gz"))


def test_a_folder_of_pictures(tmp_path):
    """The middle square, resized; decoded once, and again when a file changes"""
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    wide = np.zeros((4, 8, 3), np.uint8)
    wide[:, 2:6] = 200
    wide[:, 6:] = 90
    Image.fromarray(wide).save(folder / "b.png")
    Image.fromarray(np.full((6, 4), 7, np.uint8)).save(folder / "below" / "a.png")
    found = data.image_folder(folder, 2, cache=tmp_path / "cache")
    assert found.values.shape == (2, 3, 2, 2)
    assert (found.values[0] == 200).all()
    assert (found.values[1] == 7).all()
    again = data.image_folder(folder, 2, cache=tmp_path / "cache")
    assert isinstance(again.values, np.memmap)
    Image.fromarray(np.full((6, 4), 9, np.uint8)).save(folder / "below" / "a.png")
    assert (data.image_folder(folder, 2, cache=tmp_path / "cache").values[1] == 9).all()
    (folder / "._c.png").write_bytes(b"what some systems leave behind")
    Image.fromarray(wide[:, ::-1].copy()).save(folder / "c.png")
    assert len(data.image_folder(folder, 2, cache=tmp_path / "cache")) == 3
    cropped = data.image_folder(folder, 2, crop=2, cache=tmp_path / "cache")
    assert (cropped.values[0] == 200).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "webp"])
def test_pictures_are_read_upright(tmp_path, orientation, ending):
    """However the camera was held, and with any part cropped, the array is that of the upright picture"""
    as_seen = np.random.default_rng(0).integers(0, 256, (7, 10, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("turned", "upright"):
        (tmp_path / name).mkdir()
    lossless = {"quality": 100, "subsampling": 0} if ending == "jpg" else {"lossless": True} if ending == "webp" else {}
    Image.fromarray(as_seen).save(tmp_path / "turned" / f"a.{ending}", exif=exif, **lossless)
    with Image.open(tmp_path / "turned" / f"a.{ending}") as picture:
        ImageOps.exif_transpose(picture).save(tmp_path / "upright" / "a.png")
    for crop, size in ((None, 7), (5, 4)):
        turned, upright = (
            data.image_folder(tmp_path / name, size, crop=crop, cache=tmp_path / "cache").values
            for name in ("turned", "upright")
        )
        assert np.array_equal(turned, upright)
    assert len(set(map(bytes, upright.reshape(-1, 4)))) > 4  # a picture in which each way of turning shows


def transparent(mode):
    """A picture half of which is transparent over black, as the mode keeps it, and what its file must be told."""
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:, 2:] = 255
    grey = Image.fromarray(rgba[..., 0])
    if mode in ("RGBA", "LA", "PA"):
        return Image.fromarray(rgba).convert("P").convert("PA") if mode == "PA" else Image.fromarray(rgba).convert(
            mode
        ), {}
    return (grey if mode == "L" else grey.convert(mode)), {"transparency": (0, 0, 0) if mode == "RGB" else 0}


@pytest.mark.parametrize(
    ("mode", "ending"),
    [*((mode, "png") for mode in ("RGBA", "LA", "P", "L", "RGB", "1")), ("RGBA", "tif"), ("LA", "webp"), ("PA", "tif")],
)
def test_transparent_pictures_are_laid_on_white_and_counted(tmp_path, mode, ending):
    """In every form that transparency takes; what lies under it is not learned, and a whole picture with alpha is none"""
    folder = tmp_path / "pictures"
    folder.mkdir()
    picture, options = transparent(mode)
    picture.save(folder / f"a.{ending}", **options)
    Image.fromarray(np.full((4, 4, 4), 255, np.uint8)).save(folder / "b.png")
    for _ in range(2):  # decoded, and from the array
        with pytest.warns(
            UserWarning, match="of 2 pictures and 0 other files: pictures with transparency, laid on white: 1$"
        ):
            found = data.image_folder(folder, 4, cache=tmp_path / "cache")
        assert (found.values == 255).all()


def test_half_transparent_pictures_are_half_white(tmp_path):
    (tmp_path / "pictures").mkdir()
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[..., 0], rgba[..., 3] = 200, 51
    Image.fromarray(rgba).save(tmp_path / "pictures" / "a.png")
    with pytest.warns(UserWarning, match="laid on white: 1"):
        found = data.image_folder(tmp_path / "pictures", 2, cache=tmp_path / "cache")
    assert found.values[0, :, 0, 0].tolist() == [244, 204, 204]  # a fifth of the colour, four fifths of 255


def test_what_a_folder_holds_besides_is_counted(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    frames = [Image.fromarray(np.full((4, 4), grey, np.uint8)) for grey in (9, 200)]
    frames[0].save(folder / "a.png", format="GIF", save_all=True, append_images=frames[1:])
    for name in ("b.gif", "c.gif", "notes.txt", "LICENSE", ".hidden"):
        (folder / name).write_text("no picture")
    words = (
        r"of 1 pictures and 4 other files: pictures with several frames, of which the first was read: 1; files left out, as they "
        r"do not end in \.bmp, .*: 2 \.gif, 1 \w+, 1 \.?\w+$"
    )
    with pytest.warns(UserWarning, match=words):
        found = data.image_folder(folder, 2, cache=tmp_path / "cache")
    assert (found.values == 9).all()
    (folder / "a.png").unlink()
    with pytest.raises(ValueError, match=r"holds no picture \(.*\), but 2 \.gif, .*: pass the folder that does"):
        data.image_folder(folder, 2, cache=tmp_path / "cache")


def test_pictures_of_a_folder_are_mirrored_only_where_told(tmp_path):
    (tmp_path / "pictures").mkdir()
    Image.fromarray(np.uint8([[0, 255], [0, 255]])).save(tmp_path / "pictures" / "a.png")
    kept, mirrored = (
        data.image_folder(tmp_path / "pictures", 2, cache=tmp_path / "cache", dequantise=False, **options)
        for options in ({}, {"flip": True})
    )
    assert kept.sample(50, generator=seeded()).unique(dim=0).shape[0] == 1
    assert mirrored.sample(50, generator=seeded()).unique(dim=0).shape[0] == 2


def test_an_array_of_another_rule_is_not_taken(tmp_path, monkeypatch):
    """What an earlier version made of the same files stays where it is"""
    (tmp_path / "pictures").mkdir()
    Image.fromarray(np.full((4, 4), 9, np.uint8)).save(tmp_path / "pictures" / "a.png")
    monkeypatch.setattr(folders, "_RULE", 1)
    data.image_folder(tmp_path / "pictures", 2, cache=tmp_path / "cache")
    for file in (tmp_path / "cache" / "arrays").glob("*-values.npy"):
        np.save(file, np.zeros((1, 3, 2, 2), np.uint8))
    assert (data.image_folder(tmp_path / "pictures", 2, cache=tmp_path / "cache").values == 0).all()
    monkeypatch.undo()
    assert (data.image_folder(tmp_path / "pictures", 2, cache=tmp_path / "cache").values == 9).all()


def test_channels_that_come_last_are_refused_with_what_puts_them_right():
    """For arrays, tensors and photographs; each remedy is tried"""
    values, x, photo = np.zeros((5, 8, 9, 3), np.uint8), torch.zeros(5, 8, 8, 1), np.zeros((40, 50, 3), np.uint8)
    with pytest.raises(
        ValueError, match=r"\[5, 8, 9, 3\], which looks like \[N, H, W, C\].*pass values.transpose\(0, 3, 1, 2\)"
    ):
        data.Images(values)
    assert data.Images(values.transpose(0, 3, 1, 2)).event == (3, 8, 9)
    with pytest.raises(ValueError, match=r"\[5, 8, 8, 1\], which looks like .*pass x.permute\(0, 3, 1, 2\)"):
        data.images(x)
    assert data.images(x.permute(0, 3, 1, 2)).event == (1, 8, 8)
    with pytest.raises(
        ValueError, match=r"photos\[0\] .*looks like \[H, W, C\].*pass photos\[0\].transpose\(2, 0, 1\)"
    ):
        data.Crops([photo], 8)
    assert data.Crops([photo.transpose(2, 0, 1)], 8).event == (3, 8, 8)
    for shape in ((2, 1, 2, 3), (2, 3, 4, 4), (2, 4, 1, 1), (2, 2, 5, 5), (2, 16, 4, 4)):  # channels come first
        assert data.Images(np.zeros(shape, np.uint8)).event == shape[1:]
    with pytest.raises(TypeError, match=r"for grey images pass values\[:, None\], for one image values\[None\]"):
        data.Images(values[..., 0])
    assert data.Images(values[..., 0][:, None]).event == (1, 8, 9)
    with pytest.raises(TypeError, match=r"torch.uint8 .*pass values.numpy\(force=True\)"):
        data.Images(torch.zeros(5, 3, 8, 8, dtype=torch.uint8))


def test_the_cache_is_where_downloads_are(monkeypatch, tmp_path):
    """One folder for both, though pooch may not be installed"""
    import pooch

    assert files.cache_folder() == Path(pooch.os_cache("toyscore"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert files.cache_folder() == Path(pooch.os_cache("toyscore"))


@pytest.mark.parametrize(
    ("values", "name", "words"),
    [
        (np.uint16([[0, 65535], [300, 4095]]), "a.png", r"a\.png has more than 8 bits per pixel \(mode I;16\)"),
        (np.int32([[0, 65535], [300, 4095]]), "a.tif", r"a\.tif has more than 8 bits per pixel \(mode I\)"),
        (np.float32([[0, 1], [0.5, 0.1]]), "a.tif", r"a\.tif has numbers that are not whole \(mode F\)"),
    ],
)
def test_deep_pictures_are_not_cut_off(tmp_path, values, name, words):
    """Pillow would make white of 300 to 65,535, and black of 0 to 1"""
    (tmp_path / "pictures").mkdir()
    Image.fromarray(values).save(tmp_path / "pictures" / name)
    with pytest.raises(ValueError, match=f"{words}: pictures of 8 bits are read"):
        data.image_folder(tmp_path / "pictures", 2, cache=tmp_path / "cache")


def test_a_tensor_of_images_is_kept_in_eight_bits():
    x = torch.rand(4, 3, 5, 5, generator=seeded())
    found = data.images(x, torch.arange(4))
    assert torch.allclose(found.tensor(), x, atol=1 / 255)
    assert found.labels.tolist() == [0, 1, 2, 3]


def test_a_copy_that_an_accelerator_keeps_is_the_set():
    """The same rows as from the array, and one copy per device"""
    digits = data.digits("train")
    device, index = torch.device("cpu"), torch.randint(len(digits), (50,), generator=seeded())
    assert torch.equal(digits._resident(device)[index], digits._gather(index))
    assert digits._resident(device) is digits._resident(device)
    assert digits._resident(device).dtype == torch.uint8
