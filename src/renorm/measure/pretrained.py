r"""Published networks whose weights you bring: ``inception:FILE``, ``dinov2-small:FILE``, ...

**What papers call FID** is ``FD[inception]`` with the published weights, of 50 000 samples against the training set.
Fewer samples make it larger (its bias falls as $1/n$), and against the test set it is another figure; the numbers of
both sides stand beside a figure. What still differs: pictures are resized here by torch's bilinear interpolation, as
in pytorch-fid; the first implementation let TensorFlow resize bytes on a grid shifted by up to half a site, and scaled
them by $(x - 128)/128$. So compare figures of one tool.

``FD[dinov2-large]`` is the distance that papers call FD-DINOv2, but for the rounding to bytes after the resizing, which
is left out here.

A grey picture has its one channel three times. These networks learned from photographs: on digits or simulated fields
they see differences, but what these mean nobody has said.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from renorm.errors import DataError
from renorm.nn.dinov2 import SIZES, DinoV2
from renorm.nn.inception import Inception

__all__ = ["PRETRAINED", "Asked", "Pretrained", "parse"]


@dataclass(frozen=True)
class Pretrained:
    """A network that waits for its weights.

    Attributes:
        make: Makes the network.
        file: Published file whose keys it has.
        batch: Pictures at a time: about half a gigabyte for the widest layers.
        ignored: Patterns of keys that the file may have or lack.
    """

    make: Callable[[], nn.Module]
    file: str
    batch: int = 25
    ignored: tuple[str, ...] = ()

    def empty(self) -> nn.Module:
        """The network on the device ``meta``: no number is drawn, no memory is taken."""
        with torch.device("meta"):
            return self.make()


@dataclass(frozen=True)
class Asked:
    """What the name of an extractor asks for: a network, its file, the first digits of the file's SHA-256."""

    network: str
    path: Path
    sha256: str = ""


PRETRAINED: dict[str, Pretrained] = {
    "inception": Pretrained(Inception, "pt_inception-2015-12-05-6726825d.pth", ignored=("AuxLogits.*",)),
    "dinov2-small": Pretrained(lambda: DinoV2(*SIZES["small"]), "dinov2_vits14_pretrain.pth"),
    "dinov2-base": Pretrained(lambda: DinoV2(*SIZES["base"]), "dinov2_vitb14_pretrain.pth"),
    "dinov2-large": Pretrained(lambda: DinoV2(*SIZES["large"]), "dinov2_vitl14_pretrain.pth"),
}


def parse(name: str) -> Asked | None:
    """The parts of ``network:FILE`` or ``network:FILE@SHA256``; none where no such network is named.

    A relative path starts at the current directory, ``~`` is your home.

    Raises:
        DataError: If there is no file, or what follows the last ``@`` is no checksum of 8 to 64 hex digits. (A file
            whose own name has an ``@`` needs a checksum, or a suffix after it.)

    Example:
        >>> parse("inception:weights/inception.safetensors@6726825D").sha256
        '6726825d'
        >>> parse("mnist-cnn") is None
        True
    """
    network, colon, rest = name.partition(":")
    if network not in PRETRAINED or not colon:
        return None
    path, at, sha256 = rest.rpartition("@")
    if not at or "." in sha256 or "/" in sha256:  # the @, if any, belongs to the path
        path, sha256 = rest, ""
    elif not re.fullmatch(r"[0-9a-fA-F]{8,64}", sha256):
        raise DataError(f"a recorded SHA-256 has 8 to 64 hex digits (after the @), got {sha256!r}")
    if not path:
        raise DataError(f"{network} needs a file of weights, {network}:FILE, got {name!r}")
    return Asked(network, Path(path).expanduser(), sha256.lower())
