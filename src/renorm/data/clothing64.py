"""Photographs of clothes at 64 x 64 in ten classes, as losslessly residual-coded ``.npz`` stacks."""

from renorm.data import store
from renorm.data.raw import Raw
from renorm.data.residual import read_residual
from renorm.data.spec import DataSpec, Split
from renorm.errors import DataError

__all__ = ["read"]

CLASSES = 10


def read(spec: DataSpec, split: Split) -> Raw:
    """Colour 64 x 64 photographs: 3068 to train, 372 to test.

    Raises:
        DataError: If the stacks are not there: no address serves them.

    Source:
        Grigorev, clothing-dataset-small, github.com/alexeygrigorev/clothing-dataset-small (CC0), cropped and resized.
    """
    paths = store.find("clothing64")
    if paths is None:
        raise DataError(
            "clothing64 is not served for download: put train.npz and test.npz (uint8 'residual' and 'label') into "
            "$RENORM_DATA/clothing64, or read a folder of pictures with data.name = 'folder'"
        )
    return read_residual(paths[0 if split == "train" else 1], classes=CLASSES, limit=spec.limit)
