"""Weights on disk: one safetensors file per checkpoint; a crash at any moment leaves the last good one.

A file is first written in full under another name, forced to the disk, and only then renamed. safetensors
holds no code and knows its own length; a checksum in its header also catches bytes that changed afterwards.
"""

import json
import logging
import os
import platform
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from renorm.errors import CheckpointError
from renorm.version import __version__

__all__ = [
    "Checkpoint",
    "atomic",
    "checkpoints",
    "differences",
    "latest",
    "load",
    "load_weights",
    "read_tensors",
    "save",
    "write_tensors",
]

_NAME = re.compile(r"step-(\d{8,})\.safetensors")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """Where a fit stood after ``step`` updates.

    Attributes:
        step: Updates done.
        tensors: Flat, named by part: ``network.*``, ``ema.*``, ``optimiser.*``.
        about: What JSON can hold: the identity of the run, its running means and times.
    """

    step: int
    tensors: dict[str, Tensor]
    about: dict[str, Any]

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors of one part, under their own names."""
        return {key.removeprefix(f"{name}."): t for key, t in self.tensors.items() if key.startswith(f"{name}.")}


def save(folder: Path, checkpoint: Checkpoint, *, keep: int) -> Path:
    """Write ``folder/step-00001000.safetensors`` and keep only the newest ``keep`` files up to that step.

    Files of later steps are removed too: the fit went on from before them, because they are damaged.

    Raises:
        CheckpointError: If the disk is full or the folder not writable; earlier checkpoints are still there.
    """
    path = folder / f"step-{checkpoint.step:08d}.safetensors"
    write_tensors(path, checkpoint.tensors, {**checkpoint.about, "step": checkpoint.step})
    sound = [old for step, old in checkpoints(folder) if step <= checkpoint.step][-keep:]
    for old in [*folder.glob("step-*.safetensors"), *folder.glob("*.tmp"), *folder.glob(".tmp*")]:
        if old not in sound:
            old.unlink(missing_ok=True)
    return path


def load(path: Path) -> Checkpoint:
    """Read one checkpoint.

    Raises:
        CheckpointError: If the file is absent, truncated, changed, or no checkpoint.
    """
    tensors, about = read_tensors(path)
    if not isinstance(about.get("step"), int):
        raise CheckpointError(f"{path} is no checkpoint (it names no step); give a file of a checkpoints folder")
    return Checkpoint(about["step"], tensors, about)


def latest(folder: Path) -> Checkpoint | None:
    """The newest sound checkpoint in ``folder``, None if there is none; damaged ones are skipped aloud.

    Raises:
        CheckpointError: If there are files and every one is damaged: to start afresh is for people to decide.
    """
    found = checkpoints(folder)
    for _, path in reversed(found):
        try:
            return load(path)
        except CheckpointError as error:
            _log.warning("%s; trying the checkpoint before it", error)
    if found:
        raise CheckpointError(f"every checkpoint in {folder} is damaged; start again in another folder")
    return None


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Step and path of every checkpoint in ``folder``, oldest first; no file is opened."""
    names = [(_NAME.fullmatch(path.name), path) for path in folder.glob("step-*.safetensors")]
    return sorted((int(match[1]), path) for match, path in names if match)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write named tensors and JSON-able facts about them to a safetensors file, atomically.

    Raises:
        CheckpointError: If the file cannot be written; what was there before is untouched.
    """
    plain = _on_cpu(tensors)
    facts = {"crc32": _checksum(plain), "renorm": __version__, "libraries": _libraries(), **about}
    with atomic(path) as temporary:
        save_file(plain, temporary, {"renorm": json.dumps(facts)})


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Named tensors, on the CPU, and the facts written with them.

    Raises:
        CheckpointError: If the file is absent, damaged, or was not written by ``write_tensors``.
    """
    try:
        with safe_open(path, framework="pt") as file:  # type: ignore[no-untyped-call]
            facts = (file.metadata() or {}).get("renorm")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist; check the path of the run") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); use an earlier one or fit again") from None
    if facts is None:
        raise CheckpointError(f"{path} was not written by renorm (no 'renorm' in its header); give a file of a run")
    about = json.loads(facts)
    if about.pop("crc32", None) != _checksum(tensors):
        raise CheckpointError(f"{path} is damaged (its checksum differs); use an earlier one or fit again")
    return tensors, about


def load_weights(network: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Copy weights into ``network``, in place, if every name and shape agrees; else leave it as it is.

    Raises:
        CheckpointError: If a name is missing or unknown, or a shape differs; ``source`` is named.
    """
    own = network.state_dict()
    for name in [*own, *(name for name in tensors if name not in own)]:
        here = f"has shape {tuple(own[name].shape)}" if name in own else "does not exist"
        there = f"has shape {tuple(tensors[name].shape)}" if name in tensors else "does not exist"
        if here != there:
            raise CheckpointError(
                f"{source} belongs to another model: '{name}' {there} in the file and {here} in the network; "
                "build the network from the recipe of that run"
            )
    network.load_state_dict(dict(tensors))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two nested tables, as ``"network.channels was 64, is 128"``.

    Example:
        >>> differences({"fit": {"lr": 0.1, "seed": 0}}, {"fit": {"lr": 0.2, "seed": 0}})
        ['fit.lr was 0.1, is 0.2']
    """
    # Through JSON, as the old table went: tuples become lists.
    was, now = _flat(old), _flat(json.loads(json.dumps(new)))
    keys = sorted({key for key in was.keys() | now.keys() if was.get(key) != now.get(key)})
    return [f"{key} was {was.get(key)!r}, is {now.get(key)!r}" for key in keys]


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A path to write to; when the block ends without error, what was written becomes ``path``, all at once.

    ``path`` holds either its old content or all of the new, whenever the power fails.

    Raises:
        CheckpointError: If the disk is full or the folder not writable; the old content stays.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic(Path(folder) / "note.txt") as temporary:
        ...         _ = temporary.write_text("whole")
        ...     (Path(folder) / "note.txt").read_text()
        'whole'
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")  # two processes never write to one
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # safetensors makes its files private, whatever the umask says
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot write {path}: {getattr(error, 'strerror', None) or error}; make room or choose "
            "another folder, then resume (what was written before is untouched)"
        ) from None
    finally:
        with suppress(OSError):  # where the folder is no folder, say what was wrong first
            temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Force a rename to the disk; Windows has no such call and needs none."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Plain tensors for safetensors, which refuses two that share storage, as tied weights do."""
    plain: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        here = tensor.detach().cpu().contiguous()
        plain[name] = here.clone() if here.untyped_storage().data_ptr() in seen else here
        seen.add(here.untyped_storage().data_ptr())
    return plain


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    """CRC-32 of all names, shapes, types and bytes."""
    value = 0
    for name in sorted(tensors):
        tensor = tensors[name]
        value = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), value)
        value = zlib.crc32(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data, value)
    return value


def _libraries() -> dict[str, str]:
    return {"python": platform.python_version(), "torch": torch.__version__}


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, list) and value and all(isinstance(entry, Mapping) for entry in value):
            value = {str(index): entry for index, entry in enumerate(value)}
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value})
    return flat
