"""Features of residues are one row of finite numbers a residue."""

import torch
from jaxtyping import Float
from torch import Tensor

from renorm.errors import DataError

__all__ = ["checked"]


def checked(x: Tensor, residues: int, dtype: torch.dtype, what: str) -> Float[Tensor, "residues feature"]:
    """Features as they are kept, on the CPU.

    Args:
        x: As they came.
        residues: How many there must be.
        dtype: To keep them in.
        what: Names the chain, for messages.

    Raises:
        DataError: If they are not one row a residue, are no numbers, not finite, or too large for ``dtype``.

    Example:
        >>> checked(torch.zeros(4, 2), 5, torch.float16, "mine")
        Traceback (most recent call last):
        renorm.errors.DataError: features must be one row for each of the 5 residues of mine, (5, features), got (4, 2)
    """
    if x.ndim != 2 or len(x) != residues or not x.shape[1]:
        raise DataError(
            f"features must be one row for each of the {residues} residues of {what}, ({residues}, features), got "
            f"{tuple(x.shape)}"
        )
    if x.is_complex() or x.dtype == torch.bool:
        raise DataError(f"features must be real numbers, got {x.dtype} for {what}")
    if not x.isfinite().all():
        raise DataError(f"features must be finite numbers, got nan or inf for {what}")
    kept = x.detach().to("cpu", dtype).contiguous()
    if not kept.isfinite().all():
        raise DataError(
            f"features must fit {str(dtype).removeprefix('torch.')}, got {x.abs().max().item():.3g} for {what}; set "
            "features.dtype = 'float32'"
        )
    return kept
