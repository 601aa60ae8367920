"""A cascade on disk: ``model.toml`` (values) and ``model.safetensors`` (weights)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from renorm.cascade.spec import CascadeSpec
from renorm.errors import CheckpointError, RecipeError
from renorm.fit.checkpoint import atomic, read_tensors, write_tensors
from renorm.lattice import Boundary, Lattice
from renorm.laws.spec import LawSpec
from renorm.spec import load_toml, to_toml

__all__ = ["CascadeCard", "read", "write"]


@dataclass(frozen=True)
class CascadeCard:
    """What ``model.toml`` says: the spec, the lattice, and the law that a heat bath is of."""

    spec: CascadeSpec
    shape: tuple[int, ...]
    boundary: Boundary = "periodic"
    channels: int = 1
    spacing: float = 1.0
    law: LawSpec | None = None
    kind: Literal["cascade"] = "cascade"

    @classmethod
    def of(cls, spec: CascadeSpec, lattice: Lattice, law: LawSpec | None) -> "CascadeCard":
        """The card of a cascade on this lattice."""
        return cls(spec, lattice.shape, lattice.boundary, lattice.channels, lattice.spacing, law)

    @property
    def lattice(self) -> Lattice:
        """Where the fields live."""
        return Lattice(self.shape, self.boundary, self.channels, self.spacing)


def write(card: CascadeCard, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a cascade's values and weights into a folder."""
    path.mkdir(parents=True, exist_ok=True)
    write_tensors(path / "model.safetensors", tensors, {"kind": card.kind})
    with atomic(path / "model.toml") as temporary:  # last: it says that the rest is there
        temporary.write_text(to_toml(card), encoding="utf-8")


def read(path: Path) -> tuple[CascadeCard, dict[str, Tensor]]:
    """What ``write`` wrote.

    Raises:
        CheckpointError: If the folder holds no cascade, or a damaged one.
    """
    if not (path / "model.toml").is_file():
        raise CheckpointError(f"{path} holds no cascade (there is no model.toml)")
    try:
        card = load_toml(CascadeCard, path / "model.toml")
    except RecipeError as error:
        raise CheckpointError(f"{path} holds no cascade: {error}") from None
    tensors, _ = read_tensors(path / "model.safetensors")
    return card, tensors
