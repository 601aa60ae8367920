r"""Feature extractors: fixed networks that turn pictures into vectors, each named and known by its SHA-256.

A distance between features means nothing without the network that made them, so every figure carries its
name: ``FD[mnist-cnn]``, never "FID", which is the distance in features of one Inception network.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from renorm.data.store import roots
from renorm.errors import DataError
from renorm.measure.two_sample import FeatureStatistics, frechet_distance
from renorm.nn.digit_cnn import DigitCNN
from renorm.nn.resnet import CifarResNet

__all__ = [
    "EXTRACTORS",
    "SHIPPED",
    "FeatureExtractor",
    "NetworkExtractor",
    "digit_report",
    "extractor",
    "feature_statistics",
    "frechet",
    "to_32",
]

SHIPPED = Path(__file__).parent / "weights" / "mnist-cnn.safetensors"
"""The weights that come with the package, written by `renorm.recipes.extractor.train_mnist_cnn`."""

BATCH = 250


@runtime_checkable
class FeatureExtractor(Protocol):
    """A named, fixed map from pictures to feature vectors."""

    @property
    def name(self) -> str:
        """The name that stands in the figure, ``FD[name]``."""
        ...

    @property
    def sha256(self) -> str:
        """Hash of the weights, so that two figures of one name can be told apart."""
        ...

    def __call__(self, x: Float[Tensor, "batch channel h w"]) -> Float[Tensor, "batch features"]:
        """Features of pictures with values in [0, 1]."""
        ...


class NetworkExtractor:
    """A classifier whose last hidden layer serves as features; pictures come to it through `to_32`.

    Args:
        name: The name that stands in the figure.
        network: A module with ``features(x)`` and, for logits, ``forward(x)``; it is put in evaluation mode.
        weights: Its safetensors file.
        channels: Channels that it reads.

    Raises:
        DataError: If the file is absent, is no safetensors file, or does not fit the network.
    """

    def __init__(self, name: str, network: nn.Module, weights: Path, *, channels: int) -> None:
        if not weights.is_file():
            raise DataError(f"the weights of {name} are absent: there is no file {weights}")
        try:
            network.load_state_dict(load_file(weights))
        except (SafetensorError, RuntimeError) as error:
            raise DataError(f"{weights} does not hold the weights of {name}: {str(error).splitlines()[0]}") from None
        self.name = name
        self.sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
        self.network: Any = network.eval().requires_grad_(False)
        self.channels = channels

    def __call__(self, x: Float[Tensor, "batch channel h w"]) -> Float[Tensor, "batch features"]:
        """Features of pictures in [0, 1]."""
        return self._batched(self.network.features, x)

    def logits(self, x: Float[Tensor, "batch channel h w"]) -> Float[Tensor, "batch classes"]:
        """Unnormalised log probability of each class."""
        return self._batched(self.network, x)

    def _batched(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([function(to_32(part, self.channels)) for part in torch.split(x, BATCH)])


def to_32(x: Float[Tensor, "batch channel h w"], channels: int) -> Float[Tensor, "batch channel 32 32"]:
    """Pictures in [0, 1] as the 32 x 32 that the networks were trained on.

    28 x 28 gets a border of two sites of value 0; 16 x 16 shows each site as 2 x 2 equal ones (nearest);
    every other size is resized by antialiased bilinear interpolation.

    Raises:
        DataError: If the channels are others, or a value lies outside [0, 1] (clip samples first).

    Example:
        >>> to_32(torch.ones(1, 1, 28, 28), 1).sum() == 28 * 28, to_32(torch.ones(1, 1, 16, 16), 1).shape
        (tensor(True), torch.Size([1, 1, 32, 32]))
    """
    if x.shape[1] != channels:
        raise DataError(f"this extractor reads {channels} channel(s), got fields of shape {tuple(x.shape)}")
    if not ((x >= 0) & (x <= 1)).all():
        raise DataError(f"pictures must lie in [0, 1] (clip samples first), got {x.min():.3g} to {x.max():.3g}")
    size = tuple(x.shape[2:])
    if size == (32, 32):
        return x
    if size == (28, 28):
        return F.pad(x, (2, 2, 2, 2))
    if size == (16, 16):
        return F.interpolate(x, scale_factor=2, mode="nearest")
    return F.interpolate(x, size=(32, 32), mode="bilinear", antialias=True)


def _mnist_cnn() -> NetworkExtractor:
    return NetworkExtractor("mnist-cnn", DigitCNN(), SHIPPED, channels=1)


def _cifar10_resnet(depth: int) -> NetworkExtractor:
    name, file = f"cifar10-resnet{depth}", Path("weights") / f"cifar10_resnet{depth}.safetensors"
    found = [root / file for root in roots() if (root / file).is_file()]
    if not found:
        raise DataError(f"the weights of {name} are absent: set RENORM_DATA to a folder that holds {file}")
    return NetworkExtractor(name, CifarResNet(depth), found[0], channels=3)


EXTRACTORS: dict[str, Callable[[], NetworkExtractor]] = {
    "mnist-cnn": _mnist_cnn,
    "cifar10-resnet20": lambda: _cifar10_resnet(20),
    "cifar10-resnet56": lambda: _cifar10_resnet(56),
}


def extractor(name: str) -> NetworkExtractor:
    """The extractor of this name: ``mnist-cnn`` ships with the package, the others need the data folder.

    Raises:
        DataError: If the name is unknown, or its weights are absent or damaged.

    Example:
        >>> extractor("mnist-cnn")(torch.zeros(3, 1, 28, 28)).shape
        torch.Size([3, 64])
    """
    if name not in EXTRACTORS:
        raise DataError(f"unknown feature extractor {name!r}; known: {', '.join(sorted(EXTRACTORS))}")
    return EXTRACTORS[name]()


def feature_statistics(
    x: Float[Tensor, "batch channel h w"], extractor: FeatureExtractor, *, batch: int = BATCH
) -> FeatureStatistics:
    """Mean and covariance of the features of pictures in [0, 1], ``batch`` at a time.

    Raises:
        DataError: If there is no picture, or a value lies outside [0, 1].
    """
    if len(x) == 0:
        raise DataError("features need at least 1 picture, got 0")
    first, *rest = torch.split(x, batch)
    features = extractor(first)
    statistics = FeatureStatistics(features.shape[1]).update(features)
    for part in rest:
        statistics.update(extractor(part))
    return statistics


def frechet(
    samples: Float[Tensor, "batch channel h w"],
    reference: Float[Tensor, "other channel h w"] | FeatureStatistics,
    extractor: FeatureExtractor,
) -> dict[str, str | int | float]:
    """Fréchet distance of samples to a reference, both in [0, 1], with all that is needed to read it.

    Args:
        reference: Pictures, or their `feature_statistics` if these are used more than once.

    Returns:
        ``figure`` (``FD[name]``), ``value``, ``samples`` and ``reference`` (how many), and the extractor's
        ``sha256``.

    Raises:
        DataError: If a side has fewer than ``features + 1`` pictures, or a value lies outside [0, 1].
    """
    ours = feature_statistics(samples, extractor)
    if not isinstance(reference, FeatureStatistics):
        reference = feature_statistics(reference, extractor)
    return {
        "figure": f"FD[{extractor.name}]",
        "value": frechet_distance(ours, reference),
        "samples": ours.num,
        "reference": reference.num,
        "sha256": extractor.sha256,
    }


def digit_report(x: Float[Tensor, "batch 1 h w"]) -> dict[str, float | list[float]]:
    r"""How sure ``mnist-cnn`` is of what it sees, and how evenly the ten digits come.

    Returns:
        ``confidence``, the mean of the largest class probability; ``histogram``, the share of each digit;
        ``entropy`` of the histogram in nats ($\ln 10 \approx 2.303$ if all digits come equally often).
    """
    probability = extractor("mnist-cnn").logits(x).softmax(1).double()
    share = probability.argmax(1).bincount(minlength=probability.shape[1]).double() / len(x)
    return {
        "confidence": float(probability.amax(1).mean()),
        "histogram": share.tolist(),
        "entropy": float(-torch.xlogy(share, share).sum()),
    }
