"""A data set in memory: fields on one lattice, standardised batch by batch."""

import hashlib
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64, Shaped, UInt8
from torch import Tensor

from renorm.errors import DataError
from renorm.lattice import Lattice

__all__ = ["Fields", "require_finite"]


@dataclass(frozen=True, eq=False)
class Fields:
    r"""Fields on a lattice; bytes stay bytes until a batch is asked for.

    A batch of bytes $v$ in the value range $[a, b]$ is

    $$ x = a + (b - a)\, v / 255. $$

    Float fields are given as they are, never rescaled: their range has a physical meaning.

    Args:
        values: uint8 (images) or float32 (fields).
        lattice: Sites, boundary and channels, in agreement with ``values``.
        labels: Class of each field, ``0 <= label < num_classes``, or -1 where it is unknown; ``None``: no classes.
        num_classes: Number of classes, or ``None`` without labels.
        value_range: $(a, b)$, the values of the bytes 0 and 255.

    Raises:
        DataError: If shapes or types disagree, a label is out of range or a value is not finite.

    Example:
        >>> x = Fields(torch.tensor([[[0, 255]]], dtype=torch.uint8), Lattice((2,)))
        >>> x.batch(torch.tensor([0]))
        tensor([[[-1.,  1.]]])
    """

    values: Shaped[Tensor, "number channel *sites"]
    lattice: Lattice
    labels: Int64[Tensor, " number"] | None = None
    num_classes: int | None = None
    value_range: tuple[float, float] = (-1.0, 1.0)

    def __post_init__(self) -> None:
        if self.values.dtype not in (torch.uint8, torch.float32):
            raise DataError(f"fields must be uint8 or float32, got {self.values.dtype}")
        if tuple(self.values.shape[1:]) != self.lattice.event_shape:
            raise DataError(
                f"fields must have the shape {self.lattice.event_shape} of their lattice, "
                f"got {tuple(self.values.shape[1:])}"
            )
        if (self.labels is None) != (self.num_classes is None):
            raise DataError(f"labels and num_classes come together, got num_classes = {self.num_classes}")
        if self.labels is not None and self.num_classes is not None:
            if len(self.labels) != len(self.values):
                raise DataError(f"{len(self.values)} fields need as many labels, got {len(self.labels)}")
            if len(self.labels) and not -1 <= int(self.labels.min()) <= int(self.labels.max()) < self.num_classes:
                low, high = int(self.labels.min()), int(self.labels.max())
                raise DataError(f"labels must be in 0 ... {self.num_classes - 1} (-1: unknown), got {low} ... {high}")
        require_finite(self.values, "the data set")

    def __len__(self) -> int:
        return len(self.values)

    def batch(
        self, index: Int64[Tensor, " batch"], *, flip_generator: torch.Generator | None = None
    ) -> Float[Tensor, "batch channel *sites"]:
        """Fields ``index`` as float32, in the value range.

        Args:
            index: Which fields.
            flip_generator: If given, each field is mirrored along its last axis with probability 1/2.
        """
        x = self.values[index]
        if flip_generator is not None:
            mirrored = torch.rand(len(x), generator=flip_generator) < 0.5
            mirrored = mirrored.reshape(-1, *[1] * (x.ndim - 1))
            x = torch.where(mirrored, x.flip(-1), x)
        if x.dtype != torch.uint8:
            return x
        low, high = self.value_range
        return x.to(torch.float32) * ((high - low) / 255) + low

    def require_classes(self) -> None:
        """Check that every field has a class, for models that read it as a condition.

        Raises:
            DataError: If there are no classes, or that of a field is unknown (-1).
        """
        unknown = len(self) if self.labels is None else int((self.labels < 0).sum())
        if unknown:
            raise DataError(
                f"every field must have a class (it is the condition), {unknown} of {len(self)} have none (-1); leave "
                "these fields out, or learn without classes (data.labels = false)"
            )

    def to_uint8(self, x: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
        """Bytes nearest to ``x``, clipped at the ends of the value range: ``to_uint8(batch(i))`` is exact.

        For float fields this is for the eye only: what lies outside the value range saturates.
        """
        low, high = self.value_range
        return ((x - low) * (255 / (high - low))).round().clamp(0, 255).to(torch.uint8)

    def sha256(self) -> str:
        """Fingerprint of the contents: types, shapes, values and labels."""
        digest = hashlib.sha256()
        for part in (self.values, self.labels):
            if part is not None:
                digest.update(f"{part.dtype} {tuple(part.shape)}".encode())
                digest.update(part.cpu().contiguous().numpy().data)
        return digest.hexdigest()


def require_finite(values: Shaped[Tensor, "number *rest"], what: str) -> None:
    """Raise ``DataError`` naming the first field of ``what`` with a NaN or an infinity."""
    if not values.is_floating_point() or not values.numel():
        return
    # The sum of |x| per field would overflow on large values, so every value is looked at.
    bad = ~torch.isfinite(values).flatten(1).all(dim=1)
    if bad.any():
        first = int(bad.nonzero()[0])
        raise DataError(
            f"every value must be a finite number; field {first} of {what} has a NaN or an infinity "
            f"({int(bad.sum())} of {len(values)} fields do); repair or leave it out"
        )
