"""Public conformance checks: give them your model or your sampler, and they say which promise it breaks.

In the manner of scikit-learn's ``check_estimator``. They know the hallway and no wing: everything comes in as an object
or as a function, so that they serve a model of yours as well as those of the library.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from renorm.coarse.base import CoarseGraining
from renorm.errors import NoLikelihoodError
from renorm.lattice import Lattice
from renorm.model import Grade, Level, RenormModel

__all__ = ["check_coarse_graining", "check_model", "check_sampler_order"]

ROUNDING = 1e-5  # of the largest value: what a change of basis and back may cost in float32
ROUNDING_64 = 1e-12  # the same in float64
JACOBIAN_LIMIT = 1024  # components of a field whose Jacobian is made, one backward pass each


def check_model(
    model: Any,
    x: Float[Tensor, "batch channel *sites"],
    *,
    tmp_path: Path,
    generator_seed: int = 0,
    load: Callable[[Path], Any] | None = None,
) -> None:
    """Check that a fitted model keeps every promise of ``renorm.model.RenormModel``.

    Args:
        model: The model, fitted.
        x: Two fields or more from its domain.
        tmp_path: An empty folder to save the model in.
        generator_seed: Of every draw.
        load: Reads what ``save`` wrote; the model's own ``load`` if not given (a network that was injected must be
            given again: ``load=partial(ModeDiffusion.load, network=net)``).

    Raises:
        AssertionError: On the first promise that is broken; the message names it.

    Example:
        >>> import tempfile
        >>> from renorm import DiffusionSpec, Lattice, ModeDiffusion
        >>> x = torch.randn(100, 1, 8, generator=torch.Generator().manual_seed(0))
        >>> model = ModeDiffusion(DiffusionSpec(denoiser="gaussian", steps=3), Lattice((8,))).fit(x)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     check_model(model, x[:2], tmp_path=Path(folder))
    """
    _promise(isinstance(model, RenormModel), "a model has every method and property of RenormModel")
    _promise(len(x) >= 2, "check_model is given two fields or more")
    _promise(tuple(x.shape[1:]) == model.domain.event_shape, "x lives on the model's domain")
    before, state = x.clone(), torch.get_rng_state()
    _check_levels(model)
    _check_sample(model, generator_seed)
    _check_coarsen(model, x, generator_seed)
    _check_refine(model, x, generator_seed)
    _check_pyramid(model, x)
    _check_log_prob(model, x)
    _check_disk(model, generator_seed, tmp_path, load or type(model).load)
    _promise(torch.equal(x, before), "no method changes the fields that it is given")
    _promise(torch.equal(torch.get_rng_state(), state), "all randomness comes from the generator that is given")


def check_coarse_graining(step: Any, lattice: Lattice, *, generator_seed: int = 0) -> None:
    r"""Check that a step keeps every promise of ``renorm.coarse.base.CoarseGraining``.

    Shapes, dtypes, the way there and back from both ends, and $\ln|\det|$ against the Jacobian by autograd.

    Args:
        step: The step.
        lattice: A small one that the step can coarse-grain, of at most 1024 sites times channels.
        generator_seed: Of the fields that are drawn.

    Raises:
        AssertionError: On the first promise that is broken; the message names it.

    Example:
        >>> from renorm.coarse.wavelet import Wavelet
        >>> check_coarse_graining(Wavelet(dim=1), Lattice((8,), boundary="periodic"))
    """
    size = lattice.channels * lattice.sites
    _promise(isinstance(step, CoarseGraining), "a step has every method of CoarseGraining")
    _promise(size <= JACOBIAN_LIMIT, f"the check is given at most {JACOBIAN_LIMIT} sites times channels, got {size}")
    coarse, detail = step.coarse_lattice(lattice).event_shape, tuple(step.detail_shape(lattice))
    _promise(math.prod(coarse) + math.prod(detail) == size, "coarse field and detail have as many numbers as the field")
    for dtype, rounding in ((torch.float32, ROUNDING), (torch.float64, ROUNDING_64)):
        x = torch.randn(3, *lattice.event_shape, generator=_seeded(generator_seed), dtype=dtype)
        _check_split(step, x, coarse, detail, rounding)
    _check_log_det(step, x[:2])


@runtime_checkable
class Ordered(Protocol):
    """Anything that declares an order."""

    @property
    def order(self) -> int: ...


def check_sampler_order(
    sampler: Ordered,
    *,
    transport: Callable[[Any, Sequence[float], Tensor], Tensor],
    variance: Callable[[float], Tensor],
    coarse: float = 0.75,
    fine: float = 0.35,
    steps: Sequence[int] = (64, 128, 256),
    tolerance: float = 0.15,
) -> float:
    r"""Check that a sampler has the order that it declares, on Gaussian data, without a network and without sampling.

    The error of the law after n steps is $e_n = \max_k|\ln(v_k/V_k)|$, v the variance that the sampler reaches in mode
    k and V the exact one. The order is minus the slope of $\ln e_n$ against $\ln n$.

    A check stands beside the wings and must not import one, so the walk comes in as a function.

    Args:
        sampler: Declares ``order``.
        transport: ``transport(sampler, times, initial)``: variance of every mode at the last of the falling scales
            ``times``, from the variance ``initial`` at the first; for a mode diffusion
            ``renorm.diffusion.transport.transported_variance`` with its schedule and spectrum.
        variance: ``variance(t)``: exact variance of every mode at scale t, float64.
        coarse, fine: Scales between which the walk is measured; modes should move there, and none come alive.
        steps: Numbers of steps.
        tolerance: How far the slope may be from the declared order.

    Returns:
        The measured order.

    Raises:
        AssertionError: If the measured order is not the declared one.

    Example: Euler's method for dv/dt = v.
        >>> class Euler:
        ...     order = 1
        >>> def transport(sampler, times, v):
        ...     for t, s in pairwise(times):
        ...         v = v * (1 + (s - t))
        ...     return v
        >>> def variance(t):
        ...     return torch.tensor([math.exp(t)], dtype=torch.float64)
        >>> round(check_sampler_order(Euler(), transport=transport, variance=variance), 1)
        1.0
    """
    initial, exact = variance(coarse), variance(fine)
    logs = []
    for n in steps:
        times = [coarse + (fine - coarse) * i / n for i in range(n)] + [fine]
        error = (transport(sampler, times, initial) / exact).log().abs().max().item()
        _promise(0 < error < math.inf, f"the error of the law after {n} steps is a number > 0, got {error}")
        logs.append((math.log(n), math.log(error)))
    n_mean, e_mean = (sum(column) / len(logs) for column in zip(*logs, strict=True))
    order = -sum((n - n_mean) * (e - e_mean) for n, e in logs) / sum((n - n_mean) ** 2 for n, _ in logs)
    name = type(sampler).__name__
    _promise(
        abs(order - sampler.order) < tolerance,
        f"{name} has the order that it declares, {sampler.order}, got {order:.3f}",
    )
    return order


def _check_split(
    step: CoarseGraining, x: Tensor, coarse: tuple[int, ...], detail: tuple[int, ...], near: float
) -> None:
    before, here = x.clone(), f"in {x.dtype}"
    split = step.split(x)
    _promise(torch.equal(x, before), f"split does not change the fields that it is given {here}")
    parts = (("coarse", split.coarse, coarse), ("detail", split.detail, detail), ("log_det", split.log_det, ()))
    for name, part, shape in parts:
        wanted = (len(x), *shape)
        _promise(tuple(part.shape) == wanted, f"the shape of {name} is {wanted}, got {tuple(part.shape)}")
        _promise(part.dtype == x.dtype, f"{name} keeps the dtype of the field, {x.dtype}, got {part.dtype}")
        _promise(bool(part.isfinite().all()), f"the values of {name} are finite {here}")
    alone = step.split(x[:1])
    for (name, part, _), single in zip(parts, alone, strict=True):
        _promise(_close(single, part[:1], near), f"{name} of a field does not depend on the other fields {here}")
    kept = [part.clone() for part in split]
    back = step.merge(split.coarse, split.detail)
    _promise(all(map(torch.equal, split, kept)), f"merge does not change the parts that it is given {here}")
    _promise(back.dtype == x.dtype, f"merge keeps the dtype of its parts, {x.dtype}, got {back.dtype}")
    _promise(_close(back, x, near), f"merge undoes split {here}")
    again = step.split(step.merge(split.coarse.flip(0), split.detail))
    undone = _close(again.coarse, split.coarse.flip(0), near) and _close(again.detail, split.detail, near)
    _promise(undone, f"split undoes merge of any coarse field with any detail {here}")


def _check_log_det(step: CoarseGraining, x: Tensor) -> None:
    def flat(values: Tensor) -> Tensor:
        coarse, detail, _ = step.split(values.reshape(1, *x.shape[1:]))
        return torch.cat([coarse.flatten(), detail.flatten()])

    for field, claimed in zip(x, step.split(x).log_det, strict=True):
        jacobian = torch.autograd.functional.jacobian(flat, field.flatten())
        exact = torch.linalg.slogdet(jacobian).logabsdet
        near = ROUNDING_64 * x[0].numel() * max(1.0, abs(exact.item()))
        value = claimed.item()
        _promise(abs(value - exact.item()) <= near, f"log_det is that of the Jacobian, {exact.item()}, got {value}")


def _check_levels(model: RenormModel) -> None:
    levels = model.levels
    _promise(len(levels) >= 2, "levels has the data and at least one coarser level")
    _promise([l.index for l in levels] == list(range(len(levels))), "level i stands at place i of levels")
    for finer, coarser in pairwise(levels):
        here = f"(levels {finer.index} and {coarser.index})"
        _promise(finer.modes >= coarser.modes, f"levels stand finest first, their number of modes falling {here}")
        _promise(finer.cutoff >= coarser.cutoff, f"levels stand finest first, their cutoff falling {here}")


def _check_sample(model: RenormModel, seed: int) -> None:
    for level in model.levels:
        x = model.sample(2, generator=_seeded(seed), level=level.index)
        where = f"of sample at level {level.index}"
        _promise(tuple(x.shape) == (2, *_event(model, level)), f"the shape {where} is (num, *event_shape)")
        _promise(bool(x.isfinite().all()), f"the values {where} are finite")
        again = model.sample(2, generator=_seeded(seed), level=level.index)
        _promise(torch.equal(x, again), f"the draws {where} are the same, bit for bit, from the same seed")
        other = model.sample(2, generator=_seeded(seed + 1), level=level.index)
        _promise(not torch.equal(x, other), f"the draws {where} differ for another seed")
    for outside in (-1, len(model.levels)):
        _refuses(partial(model.sample, 1, generator=_seeded(seed), level=outside), f"sample at level {outside}")


def _check_coarsen(model: RenormModel, x: Tensor, seed: int) -> None:
    for level in model.levels:
        where = f"of coarsen to level {level.index}"
        for draw in (None, seed):
            y = model.coarsen(x, level.index, generator=_maybe(draw))
            _promise(tuple(y.shape) == (len(x), *_event(model, level)), f"the shape {where} is that of the level")
            _promise(bool(y.isfinite().all()), f"the values {where} are finite")
            if level.index == 0:
                _promise(_close(y, x), "coarsen to level 0 is the identity")
            again = model.coarsen(x, level.index, generator=_maybe(draw))
            _promise(torch.equal(y, again), f"the draws {where} are the same, bit for bit, from the same seed")
    for outside in (-1, len(model.levels)):
        _refuses(partial(model.coarsen, x, outside), f"coarsen to level {outside}")


def _check_refine(model: RenormModel, x: Tensor, seed: int) -> None:
    last = len(model.levels) - 1
    pairs = {(level, to) for level in range(1, last + 1) for to in (0, level - 1)}
    for level, to in sorted(pairs):
        coarse = model.coarsen(x, level, generator=_seeded(seed))
        y = model.refine(coarse, level=level, to=to, generator=_seeded(seed))
        where = f"of refine from level {level} to {to}"
        shape = (len(x), *_event(model, model.levels[to]))
        _promise(tuple(y.shape) == shape, f"the shape {where} is that of the level")
        _promise(bool(y.isfinite().all()), f"the values {where} are finite")
        again = model.refine(coarse, level=level, to=to, generator=_seeded(seed))
        _promise(torch.equal(y, again), f"the draws {where} are the same, bit for bit, from the same seed")
    for level, to in ((last, last), (last - 1, last), (last + 1, 0), (last, -1)):
        coarse = torch.zeros_like(model.coarsen(x, min(level, last)))
        wrong = partial(model.refine, coarse, level=level, to=to, generator=_seeded(seed))
        _refuses(wrong, f"refine from level {level} to {to}")


def _check_pyramid(model: RenormModel, x: Tensor) -> None:
    pyramid = model.encode(x)
    _promise(len(pyramid.details) == len(model.levels) - 1, "encode gives one detail for each step between levels")
    _promise(_close(model.decode(pyramid), x), "decode undoes encode")


def _check_log_prob(model: RenormModel, x: Tensor) -> None:
    try:
        value = model.log_prob(x)
    except NoLikelihoodError:
        _promise(model.grade is Grade.NONE, f"log_prob of a model of grade '{model.grade}' gives a number")
        return
    _promise(model.grade is not Grade.NONE, "log_prob raises NoLikelihoodError where the grade is 'none'")
    _promise(tuple(value.shape) == (len(x),), "log_prob gives one number a field")
    _promise(bool(value.isfinite().all()), "log_prob is finite on fields of the domain")


def _check_disk(model: RenormModel, seed: int, folder: Path, load: Callable[[Path], Any]) -> None:
    model.save(folder)
    copy = load(folder)
    _promise(copy.domain == model.domain, "a loaded model has the domain of the saved one")
    _promise(list(copy.levels) == list(model.levels), "a loaded model has the levels of the saved one")
    ours, theirs = (m.sample(2, generator=_seeded(seed)) for m in (model, copy))
    _promise(torch.equal(ours, theirs), "a loaded model draws the same fields as the saved one, bit for bit")


def _event(model: RenormModel, level: Level) -> tuple[int, ...]:
    return level.event_shape or model.domain.event_shape


def _promise(kept: bool, what: str) -> None:
    if not kept:
        raise AssertionError(f"promised: {what}")


def _refuses(call: Callable[[], Any], what: str) -> None:
    try:
        call()
    except ValueError:
        return
    raise AssertionError(f"promised: {what} raises ValueError")


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _maybe(seed: int | None) -> torch.Generator | None:
    return None if seed is None else _seeded(seed)


def _close(a: Tensor, b: Tensor, rounding: float = ROUNDING) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() <= rounding * b.abs().max())
