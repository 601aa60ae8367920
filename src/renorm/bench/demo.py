"""How long ``renorm demo`` takes, from the first import to the written report."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from renorm.bench.result import Result
from renorm.errors import RenormError


def run(seed: int) -> Result:
    """Run the demo in a process of its own."""
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "demo"
        begun = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "renorm", "demo", "--out", str(out), "--quiet"], capture_output=True, text=True
        )
        seconds = time.perf_counter() - begun
        if done.returncode:
            raise RenormError(f"the demo failed: {done.stderr.strip().splitlines()[-1]}")
        size = (out / "report.html").stat().st_size
    return Result({"seconds": seconds, "report_bytes": size}, seeds=(seed,))
