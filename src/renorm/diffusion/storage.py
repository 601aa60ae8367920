"""A mode diffusion on disk: ``model.toml`` (values), ``moments.safetensors`` and ``model.safetensors`` (weights)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import nn

from renorm.diffusion.moments import Moments
from renorm.diffusion.spec import DiffusionSpec
from renorm.errors import CheckpointError, RecipeError
from renorm.fit.checkpoint import atomic, latest, load_weights, read_tensors, write_tensors
from renorm.lattice import Boundary, Lattice
from renorm.spec import load_toml, to_toml

__all__ = ["ModelCard", "Stored", "load", "save_frame", "save_weights"]


@dataclass(frozen=True)
class ModelCard:
    """What ``model.toml`` says: the spec, the lattice and the classes."""

    spec: DiffusionSpec
    shape: tuple[int, ...]
    boundary: Boundary = "open"
    channels: int = 1
    spacing: float = 1.0
    num_classes: int = 0
    kind: Literal["mode-diffusion"] = "mode-diffusion"

    @classmethod
    def of(cls, spec: DiffusionSpec, lattice: Lattice, num_classes: int) -> "ModelCard":
        """The card of a model on this lattice."""
        return cls(spec, lattice.shape, lattice.boundary, lattice.channels, lattice.spacing, num_classes)

    @property
    def lattice(self) -> Lattice:
        """Where the fields live."""
        return Lattice(self.shape, self.boundary, self.channels, self.spacing)


class Stored(NamedTuple):
    """What a folder holds."""

    card: ModelCard
    moments: Moments | None
    network: nn.Module | None


def save_frame(card: ModelCard, moments: Moments | None, path: Path) -> None:
    """Write all but the weights, which a fit writes by itself."""
    with atomic(path / "model.toml") as temporary:
        temporary.write_text(to_toml(card), encoding="utf-8")
    if moments is not None:
        tensors = {"mean": moments.mean, "spectrum": moments.spectrum}
        write_tensors(path / "moments.safetensors", tensors, {"kind": "moments"})


def save_weights(network: nn.Module, path: Path) -> None:
    """Write the weights of a network."""
    write_tensors(path / "model.safetensors", network.state_dict(), {"kind": "mode-diffusion"})


def load(path: Path, network: nn.Module | None) -> Stored:
    """Read a folder that ``save`` or a fit wrote; an unfinished fit is read at its last checkpoint."""
    if not (path / "model.toml").is_file():
        raise CheckpointError(f"{path} holds no model (there is no model.toml); give a run folder")
    try:
        card = load_toml(ModelCard, path / "model.toml")
    except RecipeError as error:
        raise CheckpointError(f"{error}; the folder is damaged or of another version") from None
    moments = None
    if (path / "moments.safetensors").exists():
        tensors, _ = read_tensors(path / "moments.safetensors")
        if set(tensors) != {"mean", "spectrum"} or tensors["spectrum"].shape != card.lattice.shape:
            raise CheckpointError(f"{path / 'moments.safetensors'} belongs to another model; fit again")
        moments = Moments(tensors["mean"], tensors["spectrum"])
    if card.spec.needs_moments and moments is None:
        raise CheckpointError(f"{path} lacks moments.safetensors, which its model needs; fit again")
    if card.spec.denoiser == "network":
        network = network if network is not None else _unet(card)
        _read_weights(network, path)
    return Stored(card, moments, network)


def _unet(card: ModelCard) -> nn.Module:
    from renorm.nn.unet import unet_on

    with torch.random.fork_rng(devices=[]):  # its random weights are about to be overwritten: leave no trace
        return unet_on(card.lattice, card.spec.network, num_classes=card.num_classes)


def _read_weights(network: nn.Module, path: Path) -> None:
    final = path / "model.safetensors"
    if final.exists():
        tensors, source = read_tensors(final)[0], str(final)
    else:
        saved = latest(path / "checkpoints")
        if saved is None:
            raise CheckpointError(f"{path} holds no weights yet; finish the fit with `renorm fit --resume`")
        tensors, source = saved.part("ema"), f"{path / 'checkpoints'} at step {saved.step}"
    load_weights(network, tensors, source=source)
    network.eval()
