"""Many fields by walks of a few at a time: classes checked, guidance, noise drawn where the network lies."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from renorm.bases import Basis
from renorm.diffusion.conditioned import Known, walk_given
from renorm.diffusion.denoiser import Denoiser, Guided
from renorm.diffusion.reverse import Callback, Sampler, walk_up
from renorm.diffusion.schedule import Schedule
from renorm.errors import RecipeError
from renorm.spec import require

__all__ = ["Asked", "Batches"]


@dataclass(frozen=True)
class Asked:
    """What is asked of a walk, whatever it does.

    Args:
        condition: Class of each field, or none.
        generator: Source of all randomness; the walk runs on its device.
        guidance: How much of the class, see ``Guided``.
        batch: Fields that walk together.
        callback: Called after each step.
    """

    condition: Tensor | None
    generator: torch.Generator
    guidance: float = 1.0
    batch: int = 256
    callback: Callback | None = None


@dataclass(frozen=True, eq=False)
class Batches:
    """The parts of a model that its walks need.

    Args:
        schedule: The forward flow.
        basis: Of its lattice.
        denoiser: Gives E[phi_0 | phi_t].
        network: Moves to where the noise is drawn; none for an exact denoiser.
        mean: m, mean of the modes of the data, where it is taken out.
        spectrum: P, their variance, where it was measured.
        num_classes: That it knows; this number itself means any.
    """

    schedule: Schedule
    basis: Basis
    denoiser: Denoiser
    network: nn.Module | None
    mean: Tensor | None
    spectrum: Tensor | None
    num_classes: int

    def up(
        self,
        num: int,
        sampler: Sampler,
        times: Sequence[float],
        begin: Callable[[Tensor, slice], Tensor],
        asked: Asked,
    ) -> Tensor:
        """Fields at the end of walks along ``times``; ``begin`` makes their modes at its start from white noise."""

        def walk(rows: slice, condition: Tensor | None) -> Tensor:
            def draw() -> Tensor:
                shape = (rows.stop - rows.start, *self.schedule.lattice.event_shape)
                return torch.randn(shape, generator=asked.generator, device=asked.generator.device)

            return walk_up(
                self.schedule,
                self._guided(asked),
                sampler,
                times,
                begin(draw(), rows),
                draw,
                condition=condition,
                mean=self.mean,
                spectrum=self.spectrum,
                callback=asked.callback,
            )

        return self._all(num, asked.batch, walk, asked)

    def given(self, known: Known, times: Sequence[float], particles: int, asked: Asked) -> Tensor:
        """Fields that agree with what is known; as many particles walk together as elsewhere fields."""
        require(particles >= 1, "particles must be >= 1", particles)

        def walk(rows: slice, condition: Tensor | None) -> Tensor:
            return walk_given(
                self.schedule,
                self._guided(asked),
                times,
                known.of(rows, asked.generator.device),
                generator=asked.generator,
                condition=condition,
                mean=self.mean,
                spectrum=self.spectrum,
                particles=particles,
                callback=asked.callback,
            )

        return self._all(len(known.values), max(1, asked.batch // particles), walk, asked)

    def classes(self, num: int, condition: Tensor | None) -> Tensor | None:
        """The classes, sound."""
        if condition is None:
            return None
        require(len(condition) == num, f"condition must name {num} classes, one a field", len(condition))
        low, high = int(condition.min()), int(condition.max())
        require(self.num_classes > 0, "condition needs a model with classes (drop it)", low)
        require(
            0 <= low <= high < self.num_classes, f"classes are 0 to {self.num_classes - 1}", low if low < 0 else high
        )
        return condition

    @torch.no_grad()
    def _all(self, num: int, batch: int, walk: Callable[[slice, Tensor | None], Tensor], asked: Asked) -> Tensor:
        require(num >= 1, "num must be >= 1 field", num)
        require(asked.batch >= 1, "batch must be >= 1 field", asked.batch)
        condition = self.classes(num, asked.condition)
        if self.network is not None:
            self.network.to(asked.generator.device).eval()
        done = []
        for first in range(0, num, batch):
            rows = slice(first, min(first + batch, num))
            done.append(
                self.basis.inverse(
                    walk(rows, None if condition is None else condition[rows].to(asked.generator.device))
                )
            )
        return torch.cat(done)

    def _guided(self, asked: Asked) -> Denoiser:
        """The denoiser, with the class set off from any."""
        require(math.isfinite(asked.guidance), "guidance must be a finite number", asked.guidance)
        if asked.guidance == 1.0:
            return self.denoiser
        if asked.condition is None:
            raise RecipeError(
                "guidance sets a class off from any, so it needs one for each field, got guidance "
                f"{asked.guidance} without"
            )
        return Guided(self.denoiser, asked.guidance, self.num_classes)
