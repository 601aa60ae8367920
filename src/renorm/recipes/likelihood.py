"""How likely the test fields of a run are to its model."""

import math
from pathlib import Path
from typing import Any

import torch

from renorm.data import load as load_data
from renorm.diffusion.likelihood import bits_per_dimension
from renorm.diffusion.mode_diffusion import ModeDiffusion
from renorm.diffusion.octaves import shells
from renorm.errors import DataError
from renorm.recipes.folder import read_field_recipe

__all__ = ["likelihood_of"]


def likelihood_of(
    folder: Path, model: ModeDiffusion, *, num: int, method: str, evaluations: int, seed: int
) -> dict[str, Any]:
    r"""Mean nats of test fields and bits of each of their numbers, with standard errors, and what each level adds.

    Bytes are spread over their bins by noise and told in bits of a byte: $-\log_2 p / D + \log_2(1/w)$, w the bin.

    Args:
        folder: The run.
        model: Its model.
        num: How many fields.
        method: ``"bound"`` or ``"flow"``.
        evaluations: Of the denoiser, for each.
        seed: Of all noise.

    Returns:
        ``fields``, ``evaluations``, ``nats`` and ``bits_per_dimension`` (each with ``_error``), ``bits_level_L``.

    Raises:
        DataError: If there are fewer than two fields.
    """
    fields = load_data(read_field_recipe(folder).data, "test")
    num = min(num, len(fields))
    if num < 2:
        raise DataError(f"a mean with its error needs 2 fields or more, got {num}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(seed)
    x, width = fields.batch(torch.arange(num)), 1.0
    if fields.values.dtype == torch.uint8:
        low, high = fields.value_range
        width = (high - low) / 255
        x = x + width * (torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) - 0.5)
    condition = None if fields.labels is None or not model.num_classes else fields.labels[:num]
    parts = model.log_prob(
        x, condition=condition, per_level=True, method=method, evaluations=evaluations, generator=generator
    ).double()
    nats, size = parts.sum(1), x[0].numel()
    bits = bits_per_dimension(nats, size, bin_width=width)
    found: dict[str, Any] = {"fields": num, "evaluations": evaluations}
    for name, value in (("nats", nats), ("bits_per_dimension", bits)):
        found |= {name: float(value.mean()), f"{name}_error": float(value.std() / math.sqrt(num))}
    shares = -parts.mean(0) / (size * math.log(2))
    modes = torch.tensor([int(shell.sum()) for shell in shells(model.schedule, model.levels)], dtype=torch.float64)
    shares = shares.cpu() - math.log2(width) * modes / model.lattice.sites
    return found | {
        f"bits_level_{level.index}": float(share) for level, share in zip(model.levels[::-1], shares, strict=True)
    }
