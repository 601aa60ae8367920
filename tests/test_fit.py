"""The training loop: against a plain loop, against hand-computed numbers, and against being killed."""

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from renorm.errors import CheckpointError, NonFiniteLossError, RecipeError
from renorm.fit import gradient
from renorm.fit.checkpoint import checkpoints, load, read_tensors
from renorm.fit.ema import averaged, follow
from renorm.fit.gradient import FitResult, SplitLoss, fit
from renorm.fit.progress import FitProgress
from renorm.fit.randomness import Order, seed_of
from renorm.fit.record import read_metrics
from renorm.fit.spec import FitSpec

COUNT = 37  # no multiple of the batch: epochs are straddled
SPEC = FitSpec(
    steps=40, batch=8, lr=1e-2, warmup=5, decay="cosine", weight_decay=0.1, ema=0.9, log_every=6,
    checkpoint_every=4, checkpoint_seconds=None, seed=3,
)  # fmt: skip
LONG = replace(SPEC, steps=400, checkpoint_every=15)
FIELDS = torch.randn(COUNT, 1, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def network(dropout: float = 0.2) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Conv2d(4, 1, 3, padding=1),
        )


def denoising(net: nn.Module, index: Tensor, generator: torch.Generator) -> Tensor:
    x = FIELDS[index]
    noise = torch.randn(x.shape, generator=generator)
    return (net(x + noise) - x).square().mean()


def plain(net: nn.Module, index: Tensor, generator: torch.Generator) -> Tensor:
    return (net(FIELDS[index]) - 1).square().mean()


def run(folder: Path, spec: FitSpec = SPEC, loss=denoising, net: nn.Module | None = None, **options) -> FitResult:
    options = {"progress": False, "cpu": True, **options}
    return fit(network() if net is None else net, loss, COUNT, spec, folder, **options)


def same(a: FitResult, b: FitResult) -> bool:
    pairs = [(a.network, b.network), (a.ema, b.ema)]
    return all(
        torch.equal(x, y)
        for one, other in pairs
        for x, y in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )


def timeless(metrics: list[dict]) -> list[dict]:
    return [{k: v for k, v in line.items() if k not in ("seconds", "steps_per_second")} for line in metrics]


def stopping_at(step: int, number: signal.Signals = signal.SIGINT):
    """The loss, with a signal to this process in the middle of an update."""
    calls = iter(range(1, 10**6))

    def loss(net: nn.Module, index: Tensor, generator: torch.Generator) -> Tensor:
        if next(calls) == step:
            os.kill(os.getpid(), number)
        return denoising(net, index, generator)

    return loss


# --- the settings ---


def test_spec_is_read_without_torch() -> None:
    code = "import sys, renorm.fit.spec; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_learning_rate_by_hand() -> None:
    constant = FitSpec(lr=0.8, warmup=4)
    assert [constant.learning_rate(n) for n in (0, 1, 3, 4, 99)] == pytest.approx([0.2, 0.4, 0.8, 0.8, 0.8])
    cosine = FitSpec(lr=0.8, warmup=4, decay="cosine", steps=12)
    by_hand = [0.2, 0.8, 0.4 * (1 + math.sqrt(0.5)), 0.4, 0.0]
    assert [cosine.learning_rate(n) for n in (0, 4, 6, 8, 12)] == pytest.approx(by_hand)
    assert FitSpec(lr=0.8, warmup=0).learning_rate(0) == 0.8


def test_ema_decay_by_hand() -> None:
    spec = FitSpec(ema=0.9999)
    assert [spec.ema_decay(n) for n in (0, 8, 89_990)] == pytest.approx([0.1, 0.5, 0.9999])
    assert spec.ema_decay(89_980) < 0.9999 == spec.ema_decay(10**6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps must"), ({"batch": 0}, "batch must be"), ({"lr": 0.0}, "lr must"),
        ({"lr": math.inf}, "lr must be"), ({"betas": (0.9, 1.0)}, "betas"), ({"ema": 1.0}, "ema must"),
        ({"clip": 0.0}, "clip"), ({"keep": 0}, "keep must"), ({"log_every": 0}, "log"),
        ({"checkpoint_seconds": 0.0}, "checkpoint_seconds"), ({"warmup": -1}, "warm"), ({"seed": -1}, "seed"),
        ({"checkpoint_every": 0}, "checkpoint_every"), ({"weight_decay": -1.0}, "weight_decay"),
    ],
)  # fmt: skip
def test_spec_refuses(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FitSpec(**change)


# --- the order of the fields ---


@pytest.mark.parametrize(("count", "batch"), [(37, 8), (8, 8), (3, 8), (37, 2)])
def test_every_field_is_shown_once_an_epoch(count: int, batch: int) -> None:
    order = Order(count, batch, seed=0)
    line = torch.cat([order.indices(step) for step in range(3 * count)])
    epochs = line[: 3 * count].reshape(3, count)
    assert torch.equal(epochs.sort().values, torch.arange(count).expand(3, count))
    if count == 37:
        assert not torch.equal(epochs[0], epochs[1])
    fresh = Order(count, batch, seed=0)  # asked for a late step first: no history is needed
    assert torch.equal(fresh.indices(count), order.indices(count))


def test_ranks_share_the_batch() -> None:
    order = Order(37, 8, seed=0)
    for step in range(20):
        parts = [order.indices(step, rank=rank, world=4) for rank in range(4)]
        assert torch.equal(torch.cat(parts), order.indices(step))


def test_seeds_are_distinct() -> None:
    streams = ("order", "noise", "dropout")
    seeds = {seed_of(*key) for key in product((0, 1), streams, range(50), range(4))}
    assert len(seeds) == 2 * 3 * 50 * 4
    assert max(seeds) < 2**63


# --- the average ---


def test_average_by_closed_form() -> None:
    """Weights that stand still at 1 pull an average from 0 to 1 - decay^n; buffers are copied."""
    net = nn.BatchNorm1d(2)
    average = averaged(net)
    with torch.no_grad():
        average.weight.zero_()
        net.running_mean.fill_(5)
    for _ in range(7):
        follow(average, net, decay=0.8)
    assert average.weight.tolist() == pytest.approx([1 - 0.8**7] * 2, rel=1e-6)
    assert average.running_mean.tolist() == [5, 5]
    assert not average.training
    assert not average.weight.requires_grad


# --- the loop ---


def test_against_a_plain_loop(tmp_path: Path) -> None:
    """Twenty steps of torch's own AdamW, written out, with every factor by hand."""
    spec = replace(SPEC, steps=20, clip=0.05)
    result = run(tmp_path, spec, plain, without_statistics())
    net = without_statistics()
    average = [p.detach().clone() for p in net.parameters()]
    matrices, vectors = ([p for p in net.parameters() if (p.ndim > 1) is wide] for wide in (True, False))
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.999), foreach=False, fused=False)
    order, losses, norms = Order(COUNT, 8, seed=3), [], []
    for n in range(20):
        loss = plain(net, order.indices(n), torch.Generator())
        optimiser.zero_grad()
        loss.backward()
        norm = math.sqrt(sum(p.grad.double().square().sum().item() for p in net.parameters()))
        for p in net.parameters():
            p.grad.mul_(min(1.0, 0.05 / norm))
        lr = 0.01 * min(1, (n + 1) / 5) * (0.5 * (1 + math.cos(math.pi * (n - 5) / 15)) if n > 5 else 1)
        for group in optimiser.param_groups:
            group["lr"] = lr
        optimiser.step()
        decay = min(0.9, (1 + n) / (10 + n))
        average = [decay * a + (1 - decay) * p.detach() for a, p in zip(average, net.parameters(), strict=True)]
        losses.append(loss.item())
        norms.append(norm)
    for mine, theirs in zip(result.network.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
    for mine, theirs in zip(result.ema.parameters(), average, strict=True):
        torch.testing.assert_close(mine.data, theirs, rtol=1e-4, atol=1e-6)
    assert min(norms) > 0.05  # clipping was at work
    lines = result.metrics
    assert [line["step"] for line in lines] == [6, 12, 18]
    assert lines[1]["loss"] == pytest.approx(sum(losses[6:12]) / 6, rel=1e-5)
    assert lines[1]["grad_norm"] == pytest.approx(sum(norms[6:12]) / 6, rel=1e-4)
    assert lines[1]["lr"] == spec.learning_rate(11)
    assert lines[2]["seconds"] > lines[1]["seconds"] > 0


def test_run_folder(tmp_path: Path) -> None:
    result = run(tmp_path, identity={"network": {"channels": (4, 1)}})
    assert [step for step, _ in checkpoints(tmp_path / "checkpoints")] == [36, 40]
    weights, about = read_tensors(tmp_path / "model.safetensors")
    assert about["step"] == 40
    assert about["identity"] == {"network": {"channels": [4, 1]}}
    assert all(torch.equal(weights[name], value) for name, value in result.ema.state_dict().items())
    assert not list(tmp_path.rglob("*.tmp"))


def test_seed_decides_and_global_generator_is_left_alone(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    a = run(tmp_path / "a")
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(5)
    assert same(a, run(tmp_path / "b"))
    assert not same(a, run(tmp_path / "c", replace(SPEC, seed=4)))


@pytest.mark.parametrize("precision", ["auto", "float32", "bf16"])
def test_precision(tmp_path: Path, precision) -> None:
    seen = set()

    def loss(net: nn.Module, index: Tensor, generator: torch.Generator) -> Tensor:
        y = net(FIELDS[index])
        seen.add(y.dtype)
        return y.square().mean()

    result = run(tmp_path, replace(SPEC, steps=2, precision=precision), loss)
    assert seen == {torch.bfloat16 if precision == "bf16" else torch.float32}
    assert {p.dtype for p in result.network.parameters()} == {torch.float32}


def test_frozen_and_unused_weights(tmp_path: Path) -> None:
    """A frozen weight stays; one that the loss never meets has no optimiser state, also after a resume."""

    def build() -> nn.Module:
        net = network()
        net[0].requires_grad_(False)
        net.unused = nn.Parameter(torch.ones(3))
        net.forward = lambda x: net[4](net[3](net[2](net[1](net[0](x)))))
        return net

    whole = run(tmp_path / "a", net=build())
    assert torch.equal(whole.network[0].weight, network()[0].weight)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", loss=stopping_at(11), net=build())
    assert same(whole, run(tmp_path / "b", net=build(), resume=True))


# --- stopping and going on ---


@pytest.mark.parametrize(("step", "number"), [(1, signal.SIGINT), (11, signal.SIGTERM), (39, signal.SIGINT)])
def test_stop_and_resume_is_bit_identical(tmp_path: Path, step: int, number: signal.Signals) -> None:
    whole = run(tmp_path / "whole")
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt, match=rf"stopped at step {step} of 40; .* resume"):
        run(tmp_path / "cut", loss=stopping_at(step, number))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert checkpoints(tmp_path / "cut/checkpoints")[-1][0] == step
    assert not (tmp_path / "cut/model.safetensors").exists()
    resumed = run(tmp_path / "cut", resume=True)
    assert same(whole, resumed)
    assert timeless(whole.metrics) == timeless(resumed.metrics)
    ends = [load(tmp_path / name / "checkpoints/step-00000040.safetensors") for name in ("whole", "cut")]
    assert ends[0].tensors.keys() == ends[1].tensors.keys()
    assert any(name.startswith("optimiser.exp_avg_sq.") for name in ends[0].tensors)
    assert all(torch.equal(ends[0].tensors[name], ends[1].tensors[name]) for name in ends[0].tensors)


def test_second_signal_stops_at_once(tmp_path: Path) -> None:
    def loss(net: nn.Module, index: Tensor, generator: torch.Generator) -> Tensor:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("unreachable")

    with pytest.raises(KeyboardInterrupt, match="at once"):
        run(tmp_path, loss=loss)


def test_signal_in_the_last_step_ends_the_run(tmp_path: Path) -> None:
    assert same(run(tmp_path / "a"), run(tmp_path / "b", loss=stopping_at(40)))


def test_lines_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    """A crash between checkpoints: the file has lines that the resumed run writes anew, and one cut short."""
    whole = run(tmp_path / "whole")

    def crashing(net: nn.Module, index: Tensor, generator: torch.Generator) -> Tensor:
        if len(read_metrics(tmp_path / "cut/metrics.jsonl")) == 3:  # step 18; the last checkpoint is of 16
            raise OSError("the power fails")
        return denoising(net, index, generator)

    with pytest.raises(OSError, match="power"):
        run(tmp_path / "cut", loss=crashing)
    with (tmp_path / "cut/metrics.jsonl").open("a") as file:
        file.write('{"step": 2')
    resumed = run(tmp_path / "cut", resume=True)
    assert same(whole, resumed)
    assert timeless(resumed.metrics) == timeless(whole.metrics)


def test_damaged_newest_falls_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", loss=stopping_at(11))
    newest = tmp_path / "cut/checkpoints/step-00000011.safetensors"
    os.truncate(newest, 1000)
    assert same(whole, run(tmp_path / "cut", resume=True))
    assert "step-00000011.safetensors is damaged" in caplog.text


def test_resume_without_a_run_starts_afresh(tmp_path: Path) -> None:
    assert same(run(tmp_path / "a"), run(tmp_path / "b", resume=True))


def test_resume_of_a_finished_run_returns_at_once(tmp_path: Path) -> None:
    def never(net: nn.Module, index: Tensor, generator: torch.Generator) -> Tensor:
        raise AssertionError("no step is left")

    whole = run(tmp_path)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again = run(tmp_path, loss=never, resume=True)
    assert same(whole, again)
    assert again.metrics == whole.metrics
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == files
    (tmp_path / "model.safetensors").unlink()  # killed between the last checkpoint and the model
    run(tmp_path, loss=never, resume=True)
    assert (tmp_path / "model.safetensors").exists()


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(CheckpointError, match="holds a run at step 40; resume it or choose another folder"):
        run(tmp_path)


def test_more_steps_at_a_constant_rate(tmp_path: Path) -> None:
    constant = replace(SPEC, decay="constant")
    whole = run(tmp_path / "whole", constant)
    run(tmp_path / "cut", replace(constant, steps=22))
    longer = run(tmp_path / "cut", replace(constant, log_every=6, keep=1, checkpoint_every=7), resume=True)
    assert same(whole, longer)
    assert timeless(whole.metrics) == timeless(longer.metrics)
    assert read_tensors(tmp_path / "cut/model.safetensors")[1]["step"] == 40
    with pytest.raises(CheckpointError, match="at step 40, past steps = 30; raise steps"):
        run(tmp_path / "cut", replace(constant, steps=30), resume=True)


def test_another_run_is_refused(tmp_path: Path) -> None:
    run(tmp_path, identity={"network": {"channels": 64}})
    for change, message in [
        ({"lr": 0.1}, "fit.lr was 0.01, is 0.1"),
        ({"steps": 50}, "fit.steps was 40, is 50"),
    ]:
        with pytest.raises(CheckpointError, match=f"belongs to another run: {message}"):
            run(tmp_path, replace(SPEC, **change), identity={"network": {"channels": 64}}, resume=True)
    with pytest.raises(CheckpointError, match=r"identity\.network\.channels was 64, is 128"):
        run(tmp_path, identity={"network": {"channels": 128}}, resume=True)
    with pytest.raises(CheckpointError, match=r"belongs to another model: '0\.weight' has shape"):
        run(
            tmp_path,
            identity={"network": {"channels": 64}},
            net=nn.Sequential(nn.Conv2d(1, 1, 3)),
            resume=True,
        )


@pytest.mark.parametrize("where", ["loss", "gradient norm"])
def test_non_finite_stops_and_keeps_the_checkpoints(tmp_path: Path, where: str) -> None:
    calls = iter(range(1, 10**6))

    def loss(net: nn.Module, index: Tensor, generator: torch.Generator) -> Tensor:
        value, bad = denoising(net, index, generator), next(calls) == 12
        if where == "loss":
            return value * math.inf if bad else value
        return value + (net[0].weight * 0).abs().sqrt().sum() if bad else value  # d sqrt(0) = inf * 0 = nan

    with pytest.raises(NonFiniteLossError, match=rf"the {where} at step 12 is (inf|nan).*lower lr than 0.01"):
        run(tmp_path, loss=loss)
    assert [step for step, _ in checkpoints(tmp_path / "checkpoints")] == [4, 8]
    assert all(t.isfinite().all() for t in load(checkpoints(tmp_path / "checkpoints")[-1][1]).tensors.values())
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [6]
    assert not (tmp_path / "model.safetensors").exists()


def test_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        if (tmp_path / "checkpoints/step-00000004.safetensors").exists():
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space left"):
        run(tmp_path)
    monkeypatch.undo()
    assert not list(tmp_path.rglob("*.tmp"))
    assert same(run(tmp_path, resume=True), run(tmp_path.parent / f"{tmp_path.name}-whole"))


def test_time_also_asks_for_checkpoints(tmp_path: Path) -> None:
    run(tmp_path, replace(SPEC, steps=3, checkpoint_every=1000, checkpoint_seconds=1e-9, keep=10))
    assert [step for step, _ in checkpoints(tmp_path / "checkpoints")] == [1, 2, 3]


def test_progress_without_a_terminal_is_plain_lines(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run(tmp_path, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("fit 40/40  ")
    assert lines[0].endswith("0:00:00 left")


def test_missing_tensorboard_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(RecipeError, match=r"pip install 'renorm\[track\]'"):
        run(tmp_path, replace(SPEC, tensorboard=True))


def test_tensorboard_is_told_every_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int) -> None:
            told.append((folder, purge_step))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            told.append((name, step))

        def close(self) -> None:
            told.append("closed")

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=SummaryWriter))
    run(tmp_path, replace(SPEC, steps=12, tensorboard=True))
    assert told[0] == (str(tmp_path / "tensorboard"), 1)
    assert {("loss", 6), ("grad_norm", 6), ("lr", 12), ("steps_per_second", 12)} < set(told)
    assert told[-1] == "closed"


def test_progress_on_a_terminal_is_a_bar(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes stderr for a terminal
    with closing(FitProgress(10, 20, shown=True)) as bar:
        bar.update(15, 0.25)
    assert "15/20" in capsys.readouterr().err
    with closing(FitProgress(10, 20, shown=False)) as bar:
        clock = iter([100.0, 128.0, 104.0])
        monkeypatch.setattr("renorm.fit.progress.time.monotonic", lambda: next(clock))
        bar.begin(4)  # the first four were taken by another run
        bar.loss = 0.5
        assert bar._line(18) == "18/20  0.5 steps/s  loss 0.5  0:00:04 left"
        assert bar._line(6) == "6/20  0.5 steps/s  loss 0.5"  # after few steps the time left is a guess
        monkeypatch.undo()
        bar.update(15, 0.25)
    assert capsys.readouterr().err == ""


# --- real processes ---


def child(folder: Path, *, launcher: tuple[str, ...] = (), task: str) -> subprocess.Popen:
    """This file as a program of its own; see the last lines."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, __file__, task, str(folder)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_killed_twice_and_resumed(tmp_path: Path) -> None:
    for least in (0, 150):
        process = child(tmp_path / "cut", task="long")
        while not any(step > least for step, _ in checkpoints(tmp_path / "cut/checkpoints")):
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.001)
        time.sleep(0.001 * (time.monotonic_ns() % 23))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    resumed = run(tmp_path / "cut", LONG, resume=True)
    whole = run(tmp_path / "whole", LONG)
    assert same(whole, resumed)
    assert timeless(whole.metrics) == timeless(resumed.metrics)


@pytest.mark.slow
def test_two_processes_learn_as_one(tmp_path: Path) -> None:
    """Without noise and batch statistics, two halves of the batch give the gradient of the whole."""
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    process = child(tmp_path / "two", launcher=launcher, task="ranks")
    _, stderr = process.communicate(timeout=240)
    assert process.returncode == 0, stderr
    ranks = [read_tensors(tmp_path / f"two/rank-{rank}.safetensors") for rank in (0, 1)]
    assert [about["world"] for _, about in ranks] == [2, 2]
    assert all(torch.equal(ranks[0][0][name], ranks[1][0][name]) for name in ranks[0][0])
    one = run(tmp_path / "one", loss=plain, net=without_statistics())
    for name, value in one.network.state_dict().items():
        torch.testing.assert_close(ranks[0][0][name], value, rtol=1e-3, atol=1e-5)
    for mine, theirs in zip(read_metrics(tmp_path / "two/metrics.jsonl"), one.metrics, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-4)


def without_statistics() -> nn.Module:
    net = network(dropout=0.0)
    return nn.Sequential(net[0], net[2], net[4])


def main(task: str, folder: Path) -> None:
    torch.set_num_threads(1)
    if task == "long":
        run(folder, LONG, resume=True)
    else:
        from accelerate import PartialState

        from renorm.fit.checkpoint import write_tensors

        # As the command line calls it, on a machine without a GPU: nobody says that it is a CPU.
        result = run(folder, loss=plain, net=without_statistics(), cpu=torch.cuda.is_available())
        rank, world = os.environ["RANK"], PartialState().num_processes  # not what was asked for: what there is
        write_tensors(folder / f"rank-{rank}.safetensors", result.network.state_dict(), {"world": world})


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))


# --- a loss in two parts, and its graph on a GPU ---


class Parted:
    """``denoising`` in the two parts of a ``SplitLoss``."""

    def draw(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        x = FIELDS[index].to(generator.device)
        return x, torch.randn(x.shape, generator=generator, device=generator.device)

    def __call__(self, net: nn.Module, *shown: Tensor) -> Tensor:
        x, noise = shown
        return (net(x + noise) - x).square().mean()


class Waiting(Parted):
    """A second part that looks at its values, which no graph can."""

    def __call__(self, net: nn.Module, *shown: Tensor) -> Tensor:
        assert bool(shown[0].isfinite().all())
        return super().__call__(net, *shown)


def test_a_loss_in_two_parts_is_the_same_loss(tmp_path: Path) -> None:
    parted = Parted()
    assert isinstance(parted, SplitLoss)

    def whole(net: nn.Module, index: Tensor, generator: torch.Generator) -> Tensor:
        return parted(net, *parted.draw(index, generator))

    assert same(run(tmp_path / "whole", loss=whole), run(tmp_path / "parted", loss=parted))


@pytest.mark.gpu
@pytest.mark.parametrize("kind", [Parted, Waiting])
def test_a_recorded_step_is_the_step(tmp_path: Path, kind: type, recwarn: pytest.WarningsRecorder) -> None:
    parted = kind()

    def whole(net: nn.Module, index: Tensor, generator: torch.Generator) -> Tensor:
        return parted(net, *parted.draw(index, generator))

    spec = replace(SPEC, precision="float32")
    fits = [
        run(tmp_path / name, spec, loss=loss, net=network(dropout=0.0), cpu=False)
        for name, loss in (("whole", whole), ("parted", parted))
    ]
    for one, other in zip(fits[0].ema.parameters(), fits[1].ema.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert any("CUDA graph" in str(found.message) for found in recwarn) == (kind is Waiting)


def test_a_step_that_no_graph_holds_leaves_those_of_other_shapes_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cut(Parted):
        """Batches of two shapes in turn."""

        def draw(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
            kept = index[: 2 + int(index[0]) % 2]
            return super().draw(kept, generator)

    replays = []

    class Graph:
        """Of three fields, not of two."""

        def __init__(self, function: Any, shown: tuple[Tensor, ...]) -> None:
            if len(shown[0]) == 2:
                raise RuntimeError("looks at a value")
            self.function = function

        def __call__(self, shown: tuple[Tensor, ...]) -> Any:
            replays.append(len(shown[0]))
            return self.function(*shown)

    plain = run(tmp_path / "plain", loss=Cut())
    monkeypatch.setattr(gradient, "Recorded", Graph)
    monkeypatch.setattr(
        gradient._Learner, "records", property(lambda self: True, lambda self, value: None), raising=False
    )
    with pytest.warns(UserWarning, match="of these shapes cannot be recorded as a CUDA graph") as told:
        again = run(tmp_path / "again", loss=Cut())
    assert sum("CUDA graph" in str(found.message) for found in told) == 1
    assert len(replays) > 2
    assert set(replays) == {3}
    assert same(plain, again)
