"""Lossless MNIST: bytes of the file that a tree of hidden tokens makes of 10 000 test images, beside other codecs."""

import time
from typing import Any

import numpy as np

from renorm.bench.image_codecs import peers
from renorm.bench.result import Result
from renorm.data import load
from renorm.data.spec import DataSpec
from renorm.tokens.presets import grey_tree, patches
from renorm.tokens.token_hierarchy import TokenHierarchy

__all__ = ["run"]


def run(seed: int) -> Result:
    """Fit on 60 000 images, code 10 000, read them back; then tokens only, with their distortion."""
    train, test = (load(DataSpec("mnist"), split).values.numpy() for split in ("train", "test"))
    begun = time.perf_counter()
    model = TokenHierarchy.of(grey_tree())
    model.seed += seed
    model.fit(train)
    fitted = time.perf_counter()
    data = model.compress(test)
    coded = time.perf_counter()
    back = model.decompress(data)
    read = time.perf_counter()
    bits = 8 * len(data) / test.size
    ideal = float(model.codec_.bits(model.codebook_.encode(test / np.float32(255))).sum())
    figures = {
        "bits_per_pixel": bits,
        "images_exact": float((back == test).all(axis=(1, 2, 3)).sum()),
        "bits_per_pixel_ideal": ideal / test.size,
        "bytes": len(data),
        "model_bytes": model.codec_.model_bytes,
        "seconds_fit": fitted - begun,
        "seconds_compress": coded - fitted,
        "seconds_decompress": read - coded,
    }
    table: list[dict[str, Any]] = [{"codec": "renorm", "one file": bits, "model_hash": model.codec_.model_hash[:16]}]
    for row in peers(test[:, 0]):
        table.append(row)
        figures[f"bits_per_pixel_{row['codec']}"] = float(row["bits per pixel"])
        figures[f"bits_per_pixel_{row['codec']}_one_file"] = float(row["one file"])
    lossy, psnr = _tokens_only(train, test)
    figures |= {"bits_per_pixel_tokens": lossy, "psnr_db_tokens": psnr}
    table.append({"codec": "renorm, tokens of 4 x 4 patches only (lossy)", "one file": lossy, "psnr_db": psnr})
    return Result(figures, table=table, seeds=(seed,))


def _tokens_only(train: np.ndarray, test: np.ndarray) -> tuple[float, float]:
    """Bits per pixel of a file of patch tokens, and the distortion of what they stand for."""
    model = TokenHierarchy.of(patches()).fit(train)
    data = model.compress(test)
    error = model.decompress(data).reshape(test.shape) - test / np.float32(255)
    return 8 * len(data) / test.size, float(-10 * np.log10(np.mean(error.astype(np.float64) ** 2)))
