"""A folder of images; its sub-folders are the classes."""

import warnings
from pathlib import Path

import numpy as np

from renorm.data.raw import Raw, hold_out
from renorm.data.resize import resize
from renorm.data.spec import DataSpec, Split
from renorm.errors import DataError

__all__ = ["read"]

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
UNKNOWN = "-1"  # the sub-folder of images whose class nobody knows
KINDS = {
    "1": "L",
    "L": "L",
    "LA": "L",
    "P": "RGB",
    "RGB": "RGB",
    "RGBA": "RGB",
    "CMYK": "RGB",
    "YCbCr": "RGB",
}


def read(spec: DataSpec, split: Split) -> Raw:
    """All images below the folder (or the one image), in the order of their names; a seeded tenth is the test.

    The first image decides whether all are grey or in colour, unless ``channels`` does; transparency is
    dropped. The class of an image is the sub-folder of the first level that it is in; in a sub-folder named ``-1``
    are images of unknown class.

    Raises:
        DataError: If the folder is absent or empty, an image is unreadable, images differ in size (without ``size``)
            or in colour (without ``channels``), or classes are asked for and none is known.
    """
    root = Path(spec.path or "")
    if not root.exists():
        raise DataError(f"there is no folder {root}")
    inside = [root] if root.is_file() else root.rglob("*")
    paths = sorted(p for p in inside if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if not paths:
        raise DataError(f"{root} has no images ({' '.join(sorted(SUFFIXES))})")
    labels, num_classes = _classes(root, paths) if spec.labels else (None, None)
    if spec.size is None:
        _check_sizes(paths)
    index = hold_out(len(paths), split, spec.seed, str(root))[: spec.limit]
    values = _stack([paths[i] for i in index], paths[0], spec)
    return Raw(values, None if labels is None else labels[index], num_classes)


def _classes(root: Path, paths: list[Path]) -> tuple[np.ndarray, int]:
    parts = [path.relative_to(root).parts for path in paths]
    for path, part in zip(paths, parts, strict=True):
        if len(part) < 2:
            raise DataError(f"labels = true needs every image in the sub-folder of its class, got {path}")
    names = sorted({part[0] for part in parts} - {UNKNOWN})
    if not names:
        raise DataError(f"labels = true needs images of at least one class, {root} has only those of '{UNKNOWN}'")
    place = {UNKNOWN: -1} | {name: index for index, name in enumerate(names)}
    return np.array([place[part[0]] for part in parts]), len(names)


def _stack(paths: list[Path], first: Path, spec: DataSpec) -> np.ndarray:
    """Images as one array (number, channel, height, width); ``first`` decides the colour and the size."""
    kind = {1: "L", 3: "RGB"}.get(spec.channels or 0)
    forced = kind is not None
    shape: tuple[int, ...] | None = None
    images = []
    for path in [first, *paths]:
        image, own_kind = _read_image(path, kind if forced else None)
        kind = kind or own_kind
        if own_kind != kind:
            raise DataError(f"images must be all grey or all in colour, got {first} and {path}; set channels to 1 or 3")
        if spec.size is not None:
            image = resize(image, spec.size, spec.resize)
        shape = shape or image.shape
        if image.shape != shape:
            raise DataError(
                f"images must have one size, got {_size(shape)} in {first} and {_size(image.shape)} in "
                f"{path}; set size to bring them to one"
            )
        images.append(image)
    return np.concatenate(images[1:])


def _check_sizes(paths: list[Path]) -> None:
    """All images of one size, by their headers: those of the other split too, which is not read now."""
    first = _header_size(paths[0])
    for path in paths:
        size = _header_size(path)
        if size != first:
            raise DataError(
                f"images must have one size, got {first[0]} x {first[1]} in {paths[0]} and {size[0]} x {size[1]} in "
                f"{path}; set size to bring them to one"
            )


def _header_size(path: Path) -> tuple[int, int]:
    """Width and height as an image is shown."""
    from PIL import Image

    try:
        with warnings.catch_warnings(), Image.open(path) as file:
            warnings.simplefilter("ignore")
            turned = file.getexif().get(0x0112, 1) >= 5  # the EXIF orientation lies on its side
            return (file.height, file.width) if turned else (file.width, file.height)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot read the image {path}: {error}; repair it or take it out") from None


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[3]} x {shape[2]}"


def _read_image(path: Path, kind: str | None) -> tuple[np.ndarray, str]:
    """One image as uint8 (1, channel, height, width), in its own kind of colour or in ``kind``."""
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings(), Image.open(path) as file:
            warnings.simplefilter("ignore")  # Pillow's remarks on odd but readable files
            if file.mode not in KINDS:
                raise DataError(f"{path} must have 8 bits a channel, got mode {file.mode}; save it so, or as .npy")
            kind = kind or KINDS[file.mode]
            pixels = np.asarray(ImageOps.exif_transpose(file).convert(kind))
    except DataError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot read the image {path}: {error}; repair it or take it out") from None
    return pixels.reshape(1, *pixels.shape[:2], -1).transpose(0, 3, 1, 2), kind
