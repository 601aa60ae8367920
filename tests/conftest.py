"""One profile for property tests, one table of tolerances, one thread (two tests share two cores)."""

import os
from pathlib import Path

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("renorm", deadline=None, derandomize=True)
hypothesis.settings.load_profile("renorm")
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))

TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-13}


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
