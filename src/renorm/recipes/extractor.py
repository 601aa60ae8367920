"""The command behind the shipped weights of ``mnist-cnn``: ``renorm reproduce mnist-cnn``."""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from safetensors.torch import save_file
from torch import Tensor

from renorm.data import DataSpec, load
from renorm.data.spec import Split
from renorm.nn.digit_cnn import DigitCNN

__all__ = ["train_mnist_cnn"]

COMMAND = "renorm reproduce mnist-cnn"


def train_mnist_cnn(
    out: Path,
    *,
    seed: int = 0,
    epochs: int = 10,
    batch: int = 128,
    peak_rate: float = 3e-3,
    num_train: int | None = None,
    num_test: int | None = None,
) -> dict[str, str | int | float]:
    """Train the digit classifier whose last hidden layer serves as features, and write its weights.

    Every digit is seen at 32 x 32, moved and turned a little, and half of each batch as its 16 x 16
    coarse version (2 x 2 means, each shown as 2 x 2 equal sites), so that the features serve both sizes. The
    number of epochs is fixed beforehand: the test set is looked at once, after training, and selects nothing.

    Args:
        out: The safetensors file, written whole or not at all; its header holds the returned record as JSON.
        seed: Fixes initial weights, order and augmentation; the same seed and number of threads on the same
            machine give the same file, bit for bit.
        peak_rate: Highest learning rate of the one-cycle schedule.
        num_train: Train on the first so many digits only.
        num_test: Measure on the first so many test digits only.

    Returns:
        Command, seed, size of the work, version, and the test accuracies ``accuracy_32`` and ``accuracy_16``.

    Raises:
        DataError: If MNIST is absent.
    """
    x, label = _digits("train", num_train)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # the initial weights know no generator; undone on leaving
        network = DigitCNN()
        _fit(network, x, label, epochs, batch, peak_rate, torch.Generator().manual_seed(seed))
    network.eval()
    x_test, label_test = _digits("test", num_test)
    record: dict[str, str | int | float] = {
        "command": COMMAND,
        "seed": seed,
        "epochs": epochs,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "train": len(x),
        "test": len(x_test),
        "accuracy_32": _accuracy(network, x_test, label_test),
        "accuracy_16": _accuracy(network, _soften(x_test), label_test),
    }
    _write(network, out, record)
    return record


def _digits(split: Split, limit: int | None) -> tuple[Float[Tensor, "batch 1 32 32"], Int64[Tensor, " batch"]]:
    """Pictures in [0, 1] and their labels."""
    fields = load(DataSpec(name="mnist", size=32, labels=True, limit=limit), split)
    assert fields.labels is not None
    return fields.values.float() / 255, fields.labels


def _soften(x: Tensor) -> Tensor:
    """The 16 x 16 version of a picture, shown at 32 x 32."""
    return F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="nearest")


def _fit(
    network: DigitCNN,
    x: Tensor,
    label: Tensor,
    epochs: int,
    batch: int,
    rate: float,
    generator: torch.Generator,
) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-2)
    steps = len(x) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * steps)
    network.train()
    for _ in range(epochs):
        order = torch.randperm(len(x), generator=generator)
        for index in torch.split(order[: steps * batch], batch):
            seen = _augment(x[index], generator)
            half = batch // 2
            seen = torch.cat([seen[:half], _soften(seen[half:])])
            loss = F.cross_entropy(network(seen), label[index])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()


def _augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each digit turned by up to 0.15 rad, scaled by up to 10 % and moved by up to 2 sites."""
    angle, scale, right, down = torch.rand(4, len(x), generator=generator) * 2 - 1
    cos, sin = (0.15 * angle).cos() * (1 + 0.1 * scale), (0.15 * angle).sin() * (1 + 0.1 * scale)
    shift = 2 * 2 / x.shape[-1]  # two sites, in units where the picture spans [-1, 1]
    turn = torch.stack([cos, -sin, shift * right, sin, cos, shift * down], dim=1).reshape(-1, 2, 3)
    return F.grid_sample(x, F.affine_grid(turn, list(x.shape), align_corners=False), align_corners=False)


@torch.no_grad()
def _accuracy(network: DigitCNN, x: Tensor, label: Tensor) -> float:
    guess = torch.cat([network(part).argmax(1) for part in torch.split(x, 500)])
    return float((guess == label).double().mean())


def _write(network: DigitCNN, out: Path, record: dict[str, str | int | float]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_suffix(".part")
    # One key: the order of several in a safetensors header changes from run to run, and with it the hash.
    save_file(network.state_dict(), part, metadata={"renorm": json.dumps(record, sort_keys=True)})
    part.replace(out)
