"""A mode diffusion on disk: ``model.toml`` (values), ``moments.safetensors`` and ``model.safetensors`` (weights)."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import torch
from torch import nn

from renorm.diffusion.build import Moments
from renorm.diffusion.spec import DiffusionSpec
from renorm.errors import CheckpointError, RecipeError
from renorm.fit.checkpoint import atomic, latest, load_weights, read_tensors, write_tensors
from renorm.lattice import Boundary, Lattice
from renorm.spec import load_toml, to_toml

if TYPE_CHECKING:
    from renorm.diffusion.mode_diffusion import ModeDiffusion

    M = TypeVar("M", bound=ModeDiffusion)

__all__ = ["ModelCard", "load", "save", "save_frame"]


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

    @property
    def lattice(self) -> Lattice:
        """Where the fields live."""
        return Lattice(self.shape, self.boundary, self.channels, self.spacing)


def save(model: "ModeDiffusion", path: Path) -> None:
    """Write the whole model to a folder."""
    save_frame(model, path)
    if model.network is not None:
        write_tensors(path / "model.safetensors", model.network.state_dict(), {"kind": "mode-diffusion"})


def save_frame(model: "ModeDiffusion", path: Path) -> None:
    """Write all but the weights, which a fit writes by itself."""
    lattice = model.lattice
    card = ModelCard(model.spec, lattice.shape, lattice.boundary, lattice.channels, lattice.spacing, model.num_classes)
    with atomic(path / "model.toml") as temporary:
        temporary.write_text(to_toml(card), encoding="utf-8")
    if model.moments is not None:
        moments = {"mean": model.moments.mean, "spectrum": model.moments.spectrum}
        write_tensors(path / "moments.safetensors", moments, {"kind": "moments"})


def load(cls: "type[M]", path: Path, network: nn.Module | None) -> "M":
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
    return cls(card.spec, card.lattice, network=network, moments=moments, num_classes=card.num_classes)


def _unet(card: ModelCard) -> nn.Module:
    from renorm.nn.unet import UNet

    lattice = card.lattice
    with torch.random.fork_rng(devices=[]):  # its random weights are about to be overwritten: leave no trace
        return UNet(
            card.spec.network,
            dim=lattice.dim,
            channels=lattice.channels,
            boundary=lattice.boundary,
            num_classes=card.num_classes,
        )


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
