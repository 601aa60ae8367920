"""The training loop: AdamW with warm-up, decay, clipping and averaged weights; on a CPU, a GPU or several.

It knows no model: the loss comes in as a function of a network, the indices of some fields and a generator. A
run that is killed and resumed learns the same weights, bit for bit on a CPU, as one that was never disturbed.
"""

import itertools
import math
import signal
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from renorm.errors import CheckpointError, NonFiniteLossError, RecipeError
from renorm.fit.checkpoint import (
    Checkpoint,
    checkpoints,
    differences,
    latest,
    load_weights,
    save,
    write_tensors,
)
from renorm.fit.ema import averaged, follow
from renorm.fit.progress import FitProgress
from renorm.fit.randomness import Order, seed_of
from renorm.fit.record import Record, read_metrics
from renorm.fit.recorded import Recorded
from renorm.fit.spec import FitSpec

__all__ = ["FitResult", "Loss", "SplitLoss", "check_resumable", "fit", "step_of"]

WARM = 3
"""Steps before one is recorded as a CUDA graph: what is made once must be there by then."""

Shapes = tuple[torch.Size, ...]

Loss = Callable[[nn.Module, Tensor, torch.Generator], Tensor]
"""``loss(network, index, generator)``: scalar mean loss of the fields ``index`` (int64, on the CPU).

Noise and scales are drawn from ``generator``, which lives on the network's device (``generator.device``). The
network is only ever called, ``network(...)``, since with several processes it comes wrapped.
"""


@runtime_checkable
class SplitLoss(Protocol):
    """A loss in two parts; a GPU records the second as a graph, with which small networks train several times faster.

    The second part must not look at the values of its tensors, nor copy any from the CPU; where it does, the steps
    are taken one operation at a time, as with a ``Loss``.
    """

    def draw(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """What a step is shown: tensors on the network's device, of one of a few sets of shapes."""
        ...

    def __call__(self, network: nn.Module, *shown: Tensor) -> Tensor:
        """Scalar mean loss."""
        ...


@dataclass(frozen=True)
class FitResult:
    """What a fit leaves behind.

    Attributes:
        network: The network that was given, with the last weights.
        ema: Its average over the steps, in eval mode: the one to sample from.
        metrics: The lines of ``metrics.jsonl``.
    """

    network: nn.Module
    ema: nn.Module
    metrics: list[dict[str, Any]]


def fit(
    network: nn.Module,
    loss: Loss | SplitLoss,
    count: int,
    spec: FitSpec,
    folder: Path,
    *,
    identity: Mapping[str, Any] | None = None,
    resume: bool = False,
    progress: bool = True,
    cpu: bool = False,
) -> FitResult:
    """Minimise the mean of ``loss`` over ``count`` fields by AdamW, in place, and leave a run in ``folder``.

    ::

        g     <- mean over the batch of d loss / d w,   scaled down to Euclidean norm ``clip`` if longer
        w     <- AdamW(w, g, lr(step))
        ema   <- decay(step) * ema + (1 - decay(step)) * w

    Written are ``checkpoints/step-*.safetensors``, ``metrics.jsonl`` and, at the end, the average as
    ``model.safetensors``.

    Args:
        network: Moved to the device and trained in place; its initial weights are the caller's to draw.
        loss: See ``Loss`` and ``SplitLoss``. It is called under bfloat16 autocast if ``spec.precision`` says so.
        count: Number of fields that ``index`` runs over.
        spec: The settings.
        folder: Of the run; made if absent.
        identity: JSON-able table of what the network and the data are; a run resumes only with the same.
        resume: Go on from the newest sound checkpoint; start afresh if there is none.
        progress: Show progress on stderr.
        cpu: Stay on the CPU even if there is a GPU.

    Returns:
        The network, its average and the metrics.

    Raises:
        CheckpointError: If the folder holds another run, a damaged one, or cannot be written.
        NonFiniteLossError: If the loss or the gradient is no finite number; the checkpoints stay.
        RecipeError: If ``spec.batch`` cannot be shared equally among the processes.
        KeyboardInterrupt: On SIGINT or SIGTERM, after the step is finished and a checkpoint is written.

    Invariant:
        Stopping at any step and resuming gives the same weights (on one CPU to the last bit).

    Example:
        >>> import tempfile
        >>> x = torch.linspace(-1, 1, 64).reshape(64, 1)
        >>> def loss(network, index, generator):
        ...     return (network(x[index]) - 3 * x[index]).square().mean()
        >>> spec = FitSpec(steps=200, batch=16, lr=0.1, warmup=10, ema=0.9)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = fit(nn.Linear(1, 1), loss, 64, spec, Path(folder), progress=False, cpu=True)
        >>> round(result.ema.weight.item(), 2)
        3.0
    """
    from accelerate import Accelerator  # costs seconds

    # Without a GPU accelerate must be told so, or several processes each take themselves for the only one.
    cpu = cpu or not torch.accelerator.is_available()
    accelerator = Accelerator(cpu=cpu, mixed_precision="no")  # autocast stands around the loss, see Learner.update
    if spec.batch % accelerator.num_processes:
        world = accelerator.num_processes
        raise RecipeError(f"batch must be a multiple of the number of processes, {world}, got {spec.batch}")
    about = {"fit": spec.lasting(), "identity": dict(identity or {})}
    saved = _newest(folder / "checkpoints", about, spec, resume)
    learner = _Learner(network, spec, accelerator)
    start, state = 0, {}
    if saved:
        learner.restore(saved)
        start, state = saved.step, saved.about.get("record", {})
    accelerator.wait_for_everyone()  # all have read before the first one writes
    if start < spec.steps:
        devices = [learner.device] if learner.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            _run(learner, loss, count, start, {**about, "record": state}, folder, progress)
    final = folder / "model.safetensors"
    if accelerator.is_main_process and (start < spec.steps or not final.exists()):
        write_tensors(final, learner.ema.state_dict(), {**about, "step": spec.steps})
    accelerator.wait_for_everyone()
    return FitResult(network, learner.ema, read_metrics(folder / "metrics.jsonl"))


def step_of(
    network: nn.Module, loss: Loss | SplitLoss, count: int, spec: FitSpec, *, cpu: bool = False
) -> Callable[[], None]:
    """The steps of ``fit``, one a call, which write nothing: to learn what a step costs.

    Example:
        >>> network = nn.Linear(1, 1)
        >>> def loss(network, index, generator):
        ...     return network(torch.ones(1, 1)).mean()
        >>> step = step_of(network, loss, 8, FitSpec(batch=2), cpu=True)
        >>> before = network.bias.item()
        >>> step()
        >>> network.bias.item() != before
        True
    """
    from accelerate import Accelerator  # costs seconds

    cpu = cpu or not torch.accelerator.is_available()
    learner = _Learner(network, spec, Accelerator(cpu=cpu, mixed_precision="no"))
    order, steps, stop = Order(count, spec.batch, spec.seed), itertools.count(), threading.Event()

    devices = [learner.device] if learner.device.type == "cuda" else []

    def step() -> None:
        number = next(steps)
        with torch.random.fork_rng(devices), _own_stream(learner.device):
            learner.update(number, loss, order.indices(number, rank=0, world=1), stop)

    return step


def check_resumable(folder: Path, spec: FitSpec, identity: Mapping[str, Any]) -> None:
    """Raise CheckpointError if ``folder`` holds another run than this one, before anything is written to it."""
    _newest(folder / "checkpoints", {"fit": spec.lasting(), "identity": dict(identity)}, spec, resume=True)


def _newest(folder: Path, about: dict[str, Any], spec: FitSpec, resume: bool) -> Checkpoint | None:
    """The checkpoint to go on from, if any and if it is of this run."""
    found = checkpoints(folder)
    if found and not resume:
        raise CheckpointError(f"{folder} holds a run at step {found[-1][0]}; resume it or choose another folder")
    saved = latest(folder)
    if saved:
        changed = differences({key: saved.about.get(key, {}) for key in about}, about)
        if changed:
            raise CheckpointError(
                f"{folder} belongs to another run: {'; '.join(changed)}; resume with the recipe of that run, "
                "or choose another folder"
            )
        if saved.step > spec.steps:
            raise CheckpointError(f"{folder} is at step {saved.step}, past steps = {spec.steps}; raise steps")
    return saved


def _run(
    learner: "_Learner",
    loss: Loss | SplitLoss,
    count: int,
    start: int,
    about: dict[str, Any],
    folder: Path,
    progress: bool,
) -> None:
    """All steps from ``start`` to the end; only the first rank writes."""
    spec, writes = learner.spec, learner.rank == 0
    order = Order(count, spec.batch, spec.seed)
    with ExitStack() as stack:
        stop = stack.enter_context(_stop_request())
        bar = stack.enter_context(closing(FitProgress(start, spec.steps, shown=progress and writes)))
        if writes:
            state, board = about["record"], spec.tensorboard
            record = Record(folder, every=spec.log_every, step=start, state=state, tensorboard=board)
            stack.enter_context(closing(record))
        stack.enter_context(_own_stream(learner.device))
        last_save = time.monotonic()
        for step in range(start, spec.steps):
            index = order.indices(step, rank=learner.rank, world=learner.world)
            update = learner.update(step, loss, index, stop)
            done, halt = step + 1, update.stop and step + 1 < spec.steps
            if writes:
                record.add(done, loss=update.loss, grad_norm=update.grad_norm, lr=spec.learning_rate(step))
                bar.update(done, update.loss)
                late = time.monotonic() - last_save > (spec.checkpoint_seconds or math.inf)
                if halt or late or done % spec.checkpoint_every == 0 or done == spec.steps:
                    facts = {**about, "record": record.state()}
                    save(folder / "checkpoints", Checkpoint(done, learner.tensors(), facts), keep=spec.keep)
                    last_save = time.monotonic()
            if halt:
                raise KeyboardInterrupt(
                    f"stopped at step {done} of {spec.steps}; {folder} is saved: resume it to go on"
                )


class _Update(NamedTuple):
    """What one update showed, as means over all ranks."""

    loss: float
    grad_norm: float
    stop: bool


class _RecordedStep(NamedTuple):
    """A graph, and the gradients that it writes."""

    graph: Recorded[tuple[Tensor, Tensor]]
    gradients: list[Tensor | None]


class _Learner:
    """The network, its average and its optimiser on this rank's device."""

    def __init__(self, network: nn.Module, spec: FitSpec, accelerator: Any) -> None:
        self.spec, self.accelerator = spec, accelerator
        self.device = torch.empty(0, device=accelerator.device).device  # with its index
        self.rank, self.world = accelerator.process_index, accelerator.num_processes
        self.network = network.to(self.device).train()
        self.wrapped = accelerator.prepare_model(network)  # the network itself in a single process
        self.ema = averaged(network)
        self.trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self.optimiser = _adamw(self.trained, spec, self.device)
        self.generator = torch.Generator(self.device)
        self.bf16 = spec.precision == "bf16" or (spec.precision == "auto" and self.device.type == "cuda")
        self.records = self.device.type == "cuda" and self.world == 1
        self.recorded: dict[Shapes, _RecordedStep] = {}
        self.seen: Counter[Shapes] = Counter()

    def update(
        self, step: int, loss: Loss | SplitLoss, index: Int64[Tensor, "local"], stop: threading.Event
    ) -> _Update:
        """One optimiser step, from ``step`` to ``step + 1``; its draws follow from (seed, step, rank)."""
        self.generator.manual_seed(seed_of(self.spec.seed, "noise", step, self.rank))
        _seed_dropout(seed_of(self.spec.seed, "dropout", step, self.rank), self.device)
        value, norm = self._gradient(loss, index)
        for group in self.optimiser.param_groups:
            group["lr"] = self.spec.learning_rate(step)
        self.optimiser.step()
        self.optimiser.zero_grad()
        follow(self.ema, self.network, self.spec.ema_decay(step))
        return self._outcome(step, value, norm, stop)

    def _gradient(self, loss: Loss | SplitLoss, index: Tensor) -> tuple[Tensor, Tensor]:
        """Leave the clipped gradient with the weights; the loss, and the norm before clipping."""
        if not isinstance(loss, SplitLoss):
            return self._backward(lambda: loss(self.wrapped, index, self.generator))
        shown = loss.draw(index, self.generator)

        def compute(*shown: Tensor) -> tuple[Tensor, Tensor]:
            return self._backward(lambda: loss(self.wrapped, *shown))

        shapes = tuple(x.shape for x in shown)
        if self.records and self.seen[shapes] == WARM:  # tried once for these shapes
            self._record(compute, shown, shapes)
        self.seen[shapes] += 1
        recorded = self.recorded.get(shapes)
        if recorded is None:
            return compute(*shown)
        for parameter, gradient in zip(self.trained.values(), recorded.gradients, strict=True):
            parameter.grad = gradient  # where this graph writes
        return recorded.graph(shown)

    def _backward(self, loss: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            value = loss()
        self.accelerator.backward(value)
        return value.detach(), nn.utils.clip_grad_norm_(self.trained.values(), self.spec.clip)

    def _record(self, compute: Callable[..., tuple[Tensor, Tensor]], shown: tuple[Tensor, ...], shapes: Shapes) -> None:
        """From now on replay steps of these shapes as a graph; a loss that cannot be recorded goes on as before."""
        try:
            graph = Recorded(compute, shown)  # gradients are none here, so the graph writes them and adds to nothing
        except RuntimeError as error:
            warnings.warn(
                f"a training step of these shapes cannot be recorded as a CUDA graph, so each is taken one operation "
                f"at a time, which is slower for small networks: {str(error).splitlines()[0]}",
                stacklevel=2,
            )
            self.optimiser.zero_grad()
        else:
            self.recorded[shapes] = _RecordedStep(graph, [parameter.grad for parameter in self.trained.values()])

    def _outcome(self, step: int, value: Tensor, norm: Tensor, stop: threading.Event) -> _Update:
        """Means over the ranks, so that all agree whether to go on; here the device is waited for."""
        asked = torch.full_like(norm, float(stop.is_set()))
        means = self.accelerator.reduce(torch.stack([value.to(norm), norm, asked]), reduction="mean")
        mean_loss, mean_norm, mean_asked = means.tolist()
        for what, number in (("loss", mean_loss), ("gradient norm", mean_norm)):
            if not math.isfinite(number):
                raise NonFiniteLossError(
                    f"the {what} at step {step + 1} is {number} (nothing can be learnt from it); try a lower "
                    f"lr than {self.spec.lr} or a longer warmup; the last checkpoint is untouched"
                )
        return _Update(mean_loss, mean_norm, mean_asked > 0)

    def tensors(self) -> dict[str, Tensor]:
        """All that the next step depends on, flat and named."""
        parts = {"network": self.network.state_dict(), "ema": self.ema.state_dict()}
        for name, parameter in self.trained.items():
            for key, value in self.optimiser.state.get(parameter, {}).items():
                parts.setdefault("optimiser", {})[f"{key}.{name}"] = value
        return {f"{part}.{name}": value for part, table in parts.items() for name, value in table.items()}

    def restore(self, saved: Checkpoint) -> None:
        """Put every tensor of ``saved`` in its place.

        Raises:
            CheckpointError: If a name or a shape differs: it belongs to another model.
        """
        source = f"the checkpoint of step {saved.step}"
        load_weights(self.network, saved.part("network"), source=source)
        load_weights(self.ema, saved.part("ema"), source=source)
        moments: dict[str, dict[str, Tensor]] = {}
        for full, value in saved.part("optimiser").items():
            key, _, name = full.partition(".")
            moments.setdefault(name, {})[key] = value
        groups = self.optimiser.state_dict()["param_groups"]
        # load_state_dict numbers the parameters group by group; it also puts each tensor on the right device.
        numbers = {id(p): i for i, p in enumerate(p for g in self.optimiser.param_groups for p in g["params"])}
        state = {numbers[id(self.trained[name])]: table for name, table in moments.items() if name in self.trained}
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})


def _adamw(trained: Mapping[str, nn.Parameter], spec: FitSpec, device: torch.device) -> torch.optim.AdamW:
    """AdamW, one kernel for all weights where torch has one; biases and gains (one axis) do not decay."""
    matrices = [p for p in trained.values() if p.ndim >= 2]
    vectors = [p for p in trained.values() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": spec.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    fused = device.type in ("cuda", "cpu")
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=spec.lr, betas=spec.betas, fused=fused)


def _seed_dropout(seed: int, device: torch.device) -> None:
    """Seed torch's own generators of this device, since dropout takes none; ``fit`` puts them back."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index].manual_seed(seed)


@contextmanager
def _own_stream(device: torch.device) -> Iterator[None]:
    """On a GPU, a stream of this fit's own: a graph is recorded on no other, and fits of several threads overlap."""
    if device.type != "cuda":
        yield
        return
    outside, own = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    own.wait_stream(outside)
    with torch.cuda.stream(own):
        yield
    outside.wait_stream(own)


@contextmanager
def _stop_request() -> Iterator[threading.Event]:
    """An event that SIGINT or SIGTERM sets, to stop after this step; a second signal stops at once."""
    asked = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt("stopped at once; the last checkpoint is untouched")
        asked.set()

    before = {}
    if threading.current_thread() is threading.main_thread():  # only it may set handlers
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
