"""What scikit-learn brings along: handwritten digits, and patches of two photographs. No download."""

import numpy as np

from renorm.data.raw import Raw, hold_out
from renorm.data.resize import block_mean
from renorm.data.spec import DataSpec, Split
from renorm.errors import DataError

__all__ = ["read_digits", "read_photos"]

STRIDE = 4  # sites between neighbouring patches
TEST_PART = 1 / 5  # right part of each photograph that only test patches come from
PATCH = 32  # edge of a patch unless a size is given


def read_digits(spec: DataSpec, split: Split) -> Raw:
    """1797 grey 8 x 8 digits in ten classes, a tenth of them the test.

    The 17 grey levels are spread over the 256 bytes.

    Source:
        Alpaydin, Kaynak, "Optical recognition of handwritten digits", UCI (1998), by scikit-learn.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    index = hold_out(len(digits.images), split, spec.seed, "digits")
    values = np.rint(digits.images[index] * (255 / 16)).astype(np.uint8)
    return Raw(values[:, None], digits.target[index], 10)


def read_photos(spec: DataSpec, split: Split) -> Raw:
    """Colour patches of a temple and a flower at half resolution, in a seeded order.

    Test patches come from the right fifth of each photograph (wider, if a patch needs more), training patches
    from the rest, so that no pixel is in both.

    Raises:
        DataError: If the photographs are too small for patches of that size.
    """
    from sklearn.datasets import load_sample_images

    size = spec.size or PATCH
    patches = []
    for photo in load_sample_images().images:
        height, width = (n // 2 * 2 for n in photo.shape[:2])
        field = block_mean(photo[:height, :width].transpose(2, 0, 1)[None], 2)[0]
        cut = field.shape[2] - max(size, round(TEST_PART * field.shape[2]))
        part = field[..., cut:] if split == "test" else field[..., :cut]
        if size > min(part.shape[1:]):
            raise DataError(f"photos of {field.shape[1]} x {field.shape[2]} sites have no patches of size {size}")
        windows = np.lib.stride_tricks.sliding_window_view(part, (size, size), axis=(1, 2))
        patches.append(windows[:, ::STRIDE, ::STRIDE].reshape(len(part), -1, size, size).swapaxes(0, 1))
    values = np.concatenate(patches)
    return Raw(values[np.random.default_rng(spec.seed).permutation(len(values))])
