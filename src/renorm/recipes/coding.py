"""Files of images, coded by the model of a run."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from renorm.data import load as load_data
from renorm.data.fields import Fields
from renorm.errors import CheckpointError, DataError, RecipeError
from renorm.fit.checkpoint import atomic
from renorm.recipes.folder import read_field_recipe, write_arrays
from renorm.recipes.run import load_run
from renorm.tokens.codec.container import read_container
from renorm.tokens.product import TokenProduct
from renorm.tokens.token_hierarchy import TokenHierarchy

__all__ = ["compress_run", "decompress_run"]


def compress_run(run: Path, out: Path, *, source: str | None = None, lossy: bool = False) -> dict[str, Any]:
    """Code images by the model of a run.

    Args:
        run: Folder of the run.
        out: The file to write.
        source: Folder of pictures, .npy or .npz file; the test images of the run if not given.
        lossy: Keep the window tokens alone.

    Returns:
        Images, bytes, bits per pixel (a site with all its channels), the model's size and hash; for lossy files the
        distortion too.

    Raises:
        CheckpointError: If the run holds no token hierarchy.
        RecipeError: If its hierarchies cannot do what is asked.
        DataError: If the images do not fit.
    """
    index, model = _member(run, lossy=lossy)
    fields = _images(run, source, model.domain.event_shape)
    images = fields.values.numpy()
    first = not model.has_coded
    data = model.compress(images)
    if first:  # the run is to read this file wherever it goes: it keeps the integers
        model.save(run / f"member{index}")
    with atomic(out) as temporary:
        temporary.write_bytes(data)
    pixels = len(images) * fields.lattice.sites  # a pixel has all its channels, as other codecs count
    figures: dict[str, Any] = {
        "images": len(images),
        "bytes": len(data),
        "bits_per_pixel": 8 * len(data) / pixels,
        "model_bytes": model.codec_.model_bytes,
        "model": model.codec_.model_hash[:16],
    }
    if lossy:
        back = model.decompress(data).reshape(images.shape)
        low, high = model.value_range
        error = ((back - low) / (high - low) - images / np.float32(255)).astype(np.float64)
        figures["psnr_db"] = float(-10 * np.log10(np.mean(error**2)))
    return figures


def decompress_run(run: Path, file: Path, out: Path) -> int:
    """Read a file that ``compress_run`` wrote by the same run; an .npz file or a folder of PNG files comes out.

    Raises:
        DataError: If the file is damaged, foreign, or was made by another model.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from None
    model = _maker(run, data, file)
    images = model.decompress(data)
    if out.suffix == ".npz":
        write_arrays(out, x=torch.from_numpy(images))
        return len(images)
    out.mkdir(parents=True, exist_ok=True)
    low, high = model.value_range
    for index, image in enumerate(images.reshape(len(images), *model.pictures_.shape)):
        bytes_ = image if image.dtype == np.uint8 else np.rint((image - low) / (high - low) * 255).clip(0, 255)
        planes = bytes_.astype(np.uint8)
        picture = Image.fromarray(planes[0] if len(planes) == 1 else np.moveaxis(planes, 0, -1))
        with atomic(out / f"{index:05d}.png") as temporary:
            picture.save(temporary, format="PNG")
    return len(images)


def _maker(run: Path, data: bytes, file: Path) -> TokenHierarchy:
    """The hierarchy of a run that made a file."""
    try:
        maker = read_container(data).model.hex()
    except DataError as error:
        raise DataError(f"{file}: {error}") from None
    hashes = {member.codec_.model_hash: member for member in _hierarchies(run).members_}
    for known, member in hashes.items():
        if known.startswith(maker):
            return member
    ours = ", ".join(known[:8] for known in hashes)
    raise DataError(f"{file} was written by another model, {maker[:8]}; {run} holds {ours}: use the run that made it")


def _hierarchies(run: Path) -> TokenProduct:
    model = load_run(run)
    if not isinstance(model, TokenProduct):
        raise CheckpointError(f"{run} holds no token hierarchy; `renorm fit tokens-mnist` makes a run that compresses")
    return model


def _member(run: Path, *, lossy: bool) -> tuple[int, TokenHierarchy]:
    """Place and hierarchy of a run that codes without loss; else, of those that do not, that of the fewest tokens."""
    model = _hierarchies(run)
    fitting = [pair for pair in enumerate(model.members_) if pair[1].lossless != lossy]
    if not fitting:
        what = "keeps tokens only" if lossy else "is lossless (grey values as tokens)"
        raise RecipeError(f"no hierarchy of {run} {what}; {'drop' if lossy else 'add'} --lossy")
    if lossy:
        return min(fitting, key=lambda pair: len(pair[1].law_.tree.leaves))
    return next((pair for pair in fitting if pair[0] == model.weighs), fitting[0])


def _images(run: Path, source: str | None, event: tuple[int, ...]) -> Fields:
    spec = read_field_recipe(run).data
    if source is None:
        fields = load_data(dataclasses.replace(spec, labels=False), "test")
    else:
        kind = "array" if Path(source).suffix in (".npy", ".npz") else "folder"
        # As they are: a lossless file must not hold images that were resized on the way.
        spec = dataclasses.replace(spec, name=kind, path=source, labels=False, limit=None, size=None, channels=None)
        fields = load_data(spec, "all")
        if fields.lattice.event_shape != event:
            raise DataError(f"the run codes images of shape {event}, {source} has {fields.lattice.event_shape}")
    if fields.values.dtype != torch.uint8:
        raise DataError("files hold images of bytes, got real fields; give pictures, or an array of uint8")
    return fields
