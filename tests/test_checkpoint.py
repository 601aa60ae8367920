"""Checkpoints: what is written comes back bit for bit; no crash costs more than the last one."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from renorm.errors import CheckpointError
from renorm.fit.checkpoint import (
    Checkpoint,
    atomic,
    checkpoints,
    differences,
    latest,
    load,
    load_weights,
    read_tensors,
    save,
    write_tensors,
)


def tensors() -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    return {
        "network.weight": torch.randn(3, 2, generator=g),
        "network.half": torch.randn(4, generator=g).bfloat16(),
        "ema.weight": torch.full((2,), torch.pi),
        "optimiser.step.weight": torch.tensor(7.0),
        "network.turned": torch.randn(3, 2, generator=g).T,
        "network.none": torch.zeros(0, 3),
    }


def put(folder: Path, step: int, keep: int = 10) -> Path:
    return save(folder, Checkpoint(step, tensors(), {"fit": {"lr": 0.1}}), keep=keep)


def steps(folder: Path) -> list[int]:
    return [step for step, _ in checkpoints(folder)]


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    checkpoint = load(put(tmp_path, 1000))
    assert checkpoint.step == 1000
    assert checkpoint.about["fit"] == {"lr": 0.1}
    assert checkpoint.about["libraries"]["torch"] == torch.__version__
    assert checkpoint.tensors.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert checkpoint.tensors[name].dtype == tensor.dtype
        assert torch.equal(checkpoint.tensors[name], tensor)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00001000.safetensors"]


@pytest.mark.skipif(os.name != "posix", reason="needs file modes")
def test_files_are_as_public_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    assert put(tmp_path, 1).stat().st_mode == (tmp_path / "other").stat().st_mode


def test_part_strips_its_prefix() -> None:
    assert list(Checkpoint(1, tensors(), {}).part("ema")) == ["weight"]


def test_tied_weights_are_written(tmp_path: Path) -> None:
    weight = torch.arange(6.0)
    views = {"a": weight, "b": weight, "part": weight[2:4]}
    write_tensors(tmp_path / "tied.safetensors", views, {})
    back, _ = read_tensors(tmp_path / "tied.safetensors")
    assert {name: t.tolist() for name, t in back.items()} == {name: t.tolist() for name, t in views.items()}


def test_newest_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 100_000_000, 15):
        put(tmp_path, step, keep=2)
    # 100_000_000 lay ahead of 15, so the fit went on from before it: it is no part of this line.
    assert steps(tmp_path) == [10, 15]


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garble(path: Path) -> None:
    path.write_bytes(b"\xff" * path.stat().st_size)


def flip_one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1  # among the weights: the format itself would not notice
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, halve, empty, garble, flip_one_bit])
def test_damaged_newest_is_skipped(tmp_path: Path, damage, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path, 1)
    damage(put(tmp_path, 2))
    with pytest.raises(CheckpointError, match=r"step-00000002.* is damaged"):
        load(tmp_path / "step-00000002.safetensors")
    found = latest(tmp_path)
    assert found is not None
    assert found.step == 1
    assert "step-00000002" in caplog.text
    damage(tmp_path / "step-00000001.safetensors")
    with pytest.raises(CheckpointError, match=r"every checkpoint .* is damaged"):
        latest(tmp_path)


def test_nothing_there_is_no_error(tmp_path: Path) -> None:
    assert latest(tmp_path) is None
    assert latest(tmp_path / "absent") is None
    with pytest.raises(CheckpointError, match="does not exist"):
        load(tmp_path / "absent.safetensors")


def test_strange_files_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="not written by renorm"):
        load(tmp_path / "other.safetensors")
    write_tensors(tmp_path / "model.safetensors", {"a": torch.zeros(1)}, {})
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load(tmp_path / "model.safetensors")


def test_full_disk_leaves_the_last_good_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, 1)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"cannot write .*No space left"):
        put(tmp_path, 2)
    with pytest.raises(CheckpointError, match="No space left"):
        put(tmp_path, 1)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001.safetensors"]
    assert load(tmp_path / "step-00000001.safetensors").step == 1


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs a limit on the size of files")
def test_file_cut_short_by_the_system(tmp_path: Path) -> None:
    """A real write that really stops half-way, by a limit on the size of files."""
    import resource

    path = tmp_path / "a.safetensors"
    write_tensors(path, {"a": torch.zeros(1)}, {})
    old = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        with pytest.raises(CheckpointError, match=r"cannot write .*File too large"):
            write_tensors(path, {"a": torch.zeros(1000)}, {})
        with (
            pytest.raises(CheckpointError, match=r"cannot write .*File too large"),
            atomic(path) as temporary,
        ):
            temporary.write_bytes(bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_weights_of_another_model_are_refused() -> None:
    network = nn.Linear(2, 3)
    before = network.weight.clone()
    good = {"weight": torch.zeros(3, 2), "bias": torch.zeros(3)}
    wrong = {
        r"'weight' has shape \(2, 3\) in the file and has shape \(3, 2\)": {
            **good,
            "weight": torch.zeros(2, 3),
        },
        "'bias' does not exist in the file": {"weight": good["weight"]},
        "'gain' .* does not exist in the network": {**good, "gain": torch.zeros(1)},
    }
    for message, weights in wrong.items():
        with pytest.raises(CheckpointError, match=f"x belongs to another model: {message}"):
            load_weights(network, weights, source="x")
    assert torch.equal(network.weight, before)
    load_weights(network, good, source="x")
    assert network.weight.abs().sum() == 0


def test_differences_name_what_changed() -> None:
    old = {"network": {"channels": [64, 128], "dropout": 0.1}, "data": "mnist"}
    assert differences(old, {"network": {"channels": (64, 128), "dropout": 0.1}, "data": "mnist"}) == []
    assert differences(old, {"network": {"channels": (64,), "heads": 2}, "data": "mnist"}) == [
        "network.channels was [64, 128], is [64]",
        "network.dropout was 0.1, is None",
        "network.heads was None, is 2",
    ]


WRITER = """
import sys, torch
from pathlib import Path
from renorm.fit.checkpoint import Checkpoint, save
for step in range(1, 10**6):
    weights = torch.full((1_000_000,), float(step))
    save(Path(sys.argv[1]), Checkpoint(step, {"network.w": weights}, {}), keep=2)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_killed_while_writing(tmp_path: Path) -> None:
    """A process that does nothing but write is killed: the newest file is sound."""
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)])
    try:
        while len(checkpoints(tmp_path)) < 2:
            assert writer.poll() is None
            time.sleep(0.01)
        time.sleep(0.0137)
    finally:
        writer.kill()
        writer.wait()
    newest, path = checkpoints(tmp_path)[-1]
    assert torch.equal(load(path).tensors["network.w"], torch.full((1_000_000,), float(newest)))
    put(tmp_path, newest + 1)
    assert not list(tmp_path.glob("*.tmp"))
