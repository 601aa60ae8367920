"""Mean and spectrum of a data set, for the parts of a diffusion that adapt to them."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from renorm.data.fields import Fields
from renorm.measure.spectrum import mode_moments, mode_power

__all__ = ["Moments", "measure_moments"]


@dataclass(frozen=True, eq=False)
class Moments:
    """First and second moments of every mode.

    Attributes:
        mean: Mean of every mode (shape (channel, *modes)); zero where the mean is not subtracted.
        spectrum: Variance of every mode about ``mean``, averaged over channels (shape (*modes)).
    """

    mean: Tensor
    spectrum: Tensor


def measure_moments(fields: Fields, *, centred: bool, isotropic: bool, batch: int = 4096) -> Moments:
    r"""Mean $m_k$ and spectrum $P_k = \langle(\phi_k - m_k)^2\rangle$ of every mode over a data set, streamed.

    Args:
        fields: The data.
        centred: Whether the mean is taken out; if not, m = 0 and P is the second moment.
        isotropic: Whether the spectrum is averaged over modes of equal |k|.
        batch: Fields in memory as floats at a time.

    Raises:
        DataError: If there are too few fields.
    """

    def batches() -> Iterator[Tensor]:
        return (fields.batch(index) for index in torch.arange(len(fields)).split(batch))

    spectrum = mode_power(batches(), fields.lattice, about="mean" if centred else "zero", radial=isotropic)
    if not centred:
        return Moments(torch.zeros(fields.lattice.event_shape, dtype=torch.float64), spectrum)
    return Moments(mode_moments(batches(), fields.lattice).mean, spectrum)
