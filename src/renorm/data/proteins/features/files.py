"""Features of residues that were made elsewhere: by any model, or by hand."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from renorm.data.npz import read_npy, read_npz
from renorm.data.proteins.features.values import checked
from renorm.data.proteins.sequence import Record
from renorm.errors import DataError

__all__ = ["FeatureFiles"]


class FeatureFiles:
    """Features by the sequence or the name of a chain: of a folder of ``.npy``, an ``.npz`` or a ``.safetensors``.

    Each entry is (residues, features); its key is a sequence, which is looked up first, or the name of a chain. A file
    ``sub/1abc.A.npy`` of a folder is that of the chain ``sub/1abc.A``.

    Args:
        path: Folder or file.

    Raises:
        DataError: If there is nothing of that kind, or a file is damaged.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     np.save(Path(folder) / "mine.npy", np.eye(3))
        ...     FeatureFiles(Path(folder))([Record("mine", "MKV")])[0].shape
        torch.Size([3, 3])
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.is_dir():
            if not self._files:
                raise DataError(
                    f"{path} has neither a language model (config.json) nor features (.npy files); give another folder"
                )
        elif not path.exists():
            raise DataError(f"there is no folder or file {path} of features")
        elif path.suffix not in (".npz", ".safetensors"):
            raise DataError(f"features are read from a folder, or an .npz or .safetensors file, got {path}")

    def __call__(
        self, records: Sequence[Record], *, dtype: torch.dtype = torch.float16
    ) -> list[Float[Tensor, "_ feature"]]:
        """Features of chains.

        Raises:
            DataError: If a chain has none, or they are not one row a residue, not finite, or of several widths.
        """
        found = [checked(self._look_up(r), len(r.sequence), dtype, f"{r.name} in {self.path}") for r in records]
        for record, x in zip(records, found, strict=True):
            if x.shape[1] != found[0].shape[1]:
                raise DataError(
                    f"all residues must have as many features, got {found[0].shape[1]} for {records[0].name} and "
                    f"{x.shape[1]} for {record.name} in {self.path}"
                )
        return found

    def close(self) -> None:
        """Give the memory of an ``.npz`` back; the next call reads it again."""
        self.__dict__.pop("_arrays", None)

    @cached_property
    def _files(self) -> dict[str, Path]:
        paths = sorted(self.path.rglob("*.npy"))
        return {path.relative_to(self.path).as_posix().removesuffix(".npy"): path for path in paths}

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        return read_npz(self.path)

    def _look_up(self, record: Record) -> Tensor:
        try:
            return self._tensor(record.sequence if record.sequence in self._keys else record.name)
        except KeyError:
            raise DataError(
                f"{self.path} has no features of {record.name}: neither its name nor its sequence of "
                f"{len(record.sequence)} residues is among its {len(self._keys)} keys"
            ) from None

    @cached_property
    def _keys(self) -> set[str]:
        if self.path.is_dir():
            return set(self._files)
        if self.path.suffix == ".npz":
            return set(self._arrays)
        try:
            with safe_open(self.path, framework="pt") as file:  # type: ignore[no-untyped-call]
                return set(file.keys())
        except (SafetensorError, OSError) as error:
            raise DataError(f"cannot read {self.path}, which is damaged or no safetensors file: {error}") from None

    def _tensor(self, key: str) -> Tensor:
        if key not in self._keys:
            raise KeyError(key)
        if self.path.suffix == ".safetensors" and not self.path.is_dir():
            with safe_open(self.path, framework="pt") as file:  # type: ignore[no-untyped-call]
                tensor: Tensor = file.get_tensor(key)
                return tensor
        array = read_npy(self._files[key]) if self.path.is_dir() else self._arrays[key]
        if array.dtype.kind not in "fiu":
            raise DataError(f"features must be real numbers, got {array.dtype} for {key} in {self.path}")
        return torch.from_numpy(array.astype(np.float32))
