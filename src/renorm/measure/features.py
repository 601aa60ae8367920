r"""Feature extractors: fixed networks that turn pictures into vectors, each named and known by its SHA-256.

A distance between features means nothing without the network that made them, so every figure carries its
name: ``FD[mnist-cnn]``, never "FID", which is the distance in features of one Inception network. What papers call
FID is ``FD[inception]`` with the published weights, of 50 000 samples against the training set; see
`renorm.measure.pretrained`.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from renorm.data.store import roots
from renorm.errors import DataError
from renorm.measure.pictures import to_32, to_colour
from renorm.measure.pretrained import PRETRAINED, parse
from renorm.measure.two_sample import FeatureStatistics, frechet_distance
from renorm.nn.digit_cnn import DigitCNN
from renorm.nn.resnet import CifarResNet
from renorm.nn.weights import check_sha256, fill, read_weights

__all__ = [
    "EXTRACTORS",
    "SHIPPED",
    "FeatureExtractor",
    "NetworkExtractor",
    "digit_report",
    "extractor",
    "feature_statistics",
    "frechet",
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
        """Features of pictures with values in [0, 1], on the device of the pictures."""
        ...


class NetworkExtractor:
    """A network whose last hidden layer serves as features, with the weights of a file.

    Args:
        name: The name that stands in the figure.
        network: A module with ``features(x)`` and, for logits, ``forward(x)``; it is put in evaluation mode. It may
            be on the device ``meta``.
        weights: Its file.
        channels: Channels that it reads. One of three reads grey pictures too if ``prepare`` makes them colours.
        prepare: Pictures in [0, 1] -> what the network reads; by default `to_32`.
        batch: Pictures at a time, which bounds the memory.
        ignored: Keys of the file that the network does not use, see `renorm.nn.weights.fill`.
        sha256: First digits of the hash that the file must have; empty: any.

    Attributes:
        reads: The numbers of channels that pictures may have.

    Raises:
        DataError: If the file is absent or damaged, does not fit the network, or has another hash.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        weights: Path,
        *,
        channels: int,
        prepare: Callable[[Tensor], Tensor] | None = None,
        batch: int = BATCH,
        ignored: tuple[str, ...] = (),
        sha256: str = "",
    ) -> None:
        self.name = name
        self.sha256 = check_sha256(weights, sha256)
        try:
            filled = fill(network, read_weights(weights), ignored=ignored)
        except DataError as error:
            raise DataError(f"{weights} does not hold the weights of {name}: {error}") from None
        self.network: Any = filled.eval().requires_grad_(False)
        self.channels, self.batch = channels, batch
        self.reads = (channels,) if prepare is None else (1, channels)
        self.prepare = partial(to_32, channels=channels) if prepare is None else prepare

    def __call__(self, x: Float[Tensor, "batch channel h w"]) -> Float[Tensor, "batch features"]:
        """Features of pictures in [0, 1], on the device of the pictures."""
        return self._batched("features", x)

    def logits(self, x: Float[Tensor, "batch channel h w"]) -> Float[Tensor, "batch classes"]:
        """Unnormalised log probability of each class."""
        return self._batched("forward", x)

    def _batched(self, method: str, x: Tensor) -> Tensor:
        function = getattr(self.network.to(x.device), method)
        with torch.no_grad():
            return torch.cat([function(self.prepare(part)) for part in torch.split(x, self.batch)])


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
    """The extractor of this name: ``mnist-cnn`` ships with the package, ``cifar10-*`` need the data folder.

    A network whose weights you bring is named with its file, ``inception:FILE``, and with the first digits of the
    file's SHA-256 if these shall be demanded, ``inception:FILE@6726825d``; see `renorm.measure.pretrained`.

    Raises:
        DataError: If the name is unknown, or its weights are absent, damaged, or not those that were recorded.

    Example:
        >>> extractor("mnist-cnn")(torch.zeros(3, 1, 28, 28)).shape
        torch.Size([3, 64])
    """
    if name in EXTRACTORS:
        return EXTRACTORS[name]()
    asked = parse(name)
    if asked is None:
        brought = ", ".join(f"{known}:FILE" for known in PRETRAINED)
        raise DataError(
            f"unknown feature extractor {name!r}; known: {', '.join(sorted(EXTRACTORS))}; "
            f"with weights that you bring: {brought}"
        )
    known = PRETRAINED[asked.network]
    return NetworkExtractor(
        asked.network,
        known.empty(),
        asked.path,
        channels=3,
        prepare=to_colour,
        batch=known.batch,
        ignored=known.ignored,
        sha256=asked.sha256,
    )


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
