"""One profile for property tests, one table of tolerances, one thread (two tests share two cores), small chains."""

import os
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

hypothesis.settings.register_profile("renorm", deadline=None, derandomize=True)
hypothesis.settings.load_profile("renorm")
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))

TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-13}

SMALL_CHAINS = {
    "data.shortest": 10, "model.network.width": 16, "model.network.layers": 1, "model.network.heads": 2,
    "model.network.pair": 8, "fit.steps": 4, "fit.batch": 4, "fit.warmup": 1, "fit.checkpoint_every": 2,
}  # fmt: skip


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def shared_data():
    """The folder of real data, where it is; tests that need it skip elsewhere."""
    candidates = [os.environ.get("RENORM_DATA"), Path(__file__).parents[2] / "shared" / "data"]
    for folder in candidates:
        if folder and Path(folder).is_dir():
            return Path(folder)
    pytest.skip("needs real data: set RENORM_DATA")


@pytest.fixture
def packed(tmp_path, monkeypatch):
    """Twelve random chains in six clusters, as a packed set; one residue of the first is missing."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(12, 20, 12)
    letters = "".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), lengths.sum()))
    step = rng.normal(size=(lengths.sum(), 3))
    walk = np.cumsum(3.8 * step / np.linalg.norm(step, axis=1, keepdims=True), axis=0)
    numbers = np.concatenate([np.arange(n) for n in lengths])
    walk[5:], numbers[5 : lengths[0]] = walk[5:] + 5, numbers[5 : lengths[0]] + 1
    folder = tmp_path / "data" / "proteins"
    folder.mkdir(parents=True)
    np.savez(
        folder / "train.npz",
        name=[f"c{i}" for i in range(12)],
        sequence=letters,
        offsets=np.concatenate([[0], lengths.cumsum()]),
        backbone_mA=np.repeat((1000 * walk).astype(np.int32)[:, None], 3, axis=1),
        residue_number=numbers,
        cluster=np.arange(12) // 2 * 5,
    )
    monkeypatch.setenv("RENORM_DATA", str(tmp_path / "data"))
    return tmp_path
