"""A token hierarchy on disk: ``model.toml`` (values) and ``model.safetensors`` (arrays)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from renorm.errors import CheckpointError, RecipeError
from renorm.fit.checkpoint import atomic, read_tensors, write_tensors
from renorm.spec import load_toml, to_toml
from renorm.tokens.spec import HierarchySpec

__all__ = ["Parts", "TokenCard", "read", "write"]

Parts = Mapping[str, Mapping[str, np.ndarray]]
"""Arrays of each part (codebook, law, codec), by name."""


@dataclass(frozen=True)
class TokenCard:
    """What ``model.toml`` says: the spec, the images and the classes."""

    spec: HierarchySpec
    shape: tuple[int, int, int]
    event: tuple[int, ...]
    value_range: tuple[float, float]
    classes: tuple[str, ...]
    class_type: str
    kind: Literal["token-hierarchy"] = "token-hierarchy"

    @classmethod
    def labels(cls, classes: np.ndarray) -> tuple[tuple[str, ...], str]:
        """Class labels as text, and the type to read them back."""
        return tuple(str(name) for name in classes.tolist()), classes.dtype.str

    @property
    def class_labels(self) -> np.ndarray:
        """The labels as they were."""
        kind = np.dtype(self.class_type)
        if kind.kind == "b":
            return np.array([name == "True" for name in self.classes])
        return np.array(self.classes).astype(kind)


def write(card: TokenCard, parts: Parts, path: Path) -> None:
    """Write a hierarchy's values and arrays into a folder."""
    path.mkdir(parents=True, exist_ok=True)
    named = {f"{part}.{key}": array for part, arrays in parts.items() for key, array in arrays.items()}
    tensors = {name: torch.from_numpy(np.array(array, order="C")) for name, array in named.items()}
    write_tensors(path / "model.safetensors", tensors, {"kind": card.kind})
    with atomic(path / "model.toml") as temporary:
        temporary.write_text(to_toml(card), encoding="utf-8")


def read(path: Path) -> tuple[TokenCard, dict[str, dict[str, np.ndarray]]]:
    """What ``write`` wrote.

    Raises:
        CheckpointError: If the folder holds no hierarchy, or a damaged one.
    """
    if not (path / "model.toml").is_file():
        raise CheckpointError(f"{path} holds no token hierarchy (there is no model.toml)")
    try:
        card = load_toml(TokenCard, path / "model.toml")
    except RecipeError as error:
        raise CheckpointError(f"{path} holds no token hierarchy: {error}") from None
    tensors, _ = read_tensors(path / "model.safetensors")
    parts: dict[str, dict[str, np.ndarray]] = {"codebook": {}, "law": {}, "codec": {}}
    for name, tensor in tensors.items():
        part, key = name.split(".", 1)
        parts[part][key] = tensor.numpy()
    return card, parts
