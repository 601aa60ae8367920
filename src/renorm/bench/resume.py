"""Killed at random moments and resumed, a fit must reach the very bits of an undisturbed one."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from renorm.bench.result import Result
from renorm.fit.checkpoint import read_tensors

KILLS = 10
CHANGES = {"fit.steps": 400, "fit.checkpoint_every": 10, "fit.warmup": 20, "model.network.width": 16}


def run(seed: int) -> Result:
    """Kill ``renorm fit demo`` ``KILLS`` times with SIGKILL, each time at a random moment, and compare the weights."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as temporary:
        whole, broken = Path(temporary) / "whole", Path(temporary) / "broken"
        begun = time.perf_counter()
        _fit(whole).wait()
        seconds = time.perf_counter() - begun
        target, kills, table = _fingerprint(whole), 0, []
        while kills < KILLS:
            if (broken / "model.safetensors").exists():
                broken = Path(temporary) / f"broken-{kills}"  # finished too soon: the next kills hit a fresh run
            process = _fit(broken)
            wait = draw.uniform(0.3, 0.6) * seconds
            try:
                process.wait(timeout=wait)
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
                found = sorted((broken / "checkpoints").glob("step-*.safetensors"))
                table.append({"kill": kills, "after_seconds": wait, "newest": found[-1].stem if found else "none"})
        finished = list(Path(temporary).glob("broken*"))
        for folder in finished:
            _fit(folder).wait()
        identical = all(_fingerprint(folder) == target for folder in finished)
    return Result({"kills": kills, "identical": float(identical), "runs": len(finished)}, table, (seed,))


def _fit(folder: Path) -> "subprocess.Popen[bytes]":
    options = [part for key, value in CHANGES.items() for part in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "renorm", "fit", "demo", "--out", str(folder), "--resume", "--quiet", *options]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def _fingerprint(folder: Path) -> str:
    """SHA-256 of all averaged weights."""
    tensors, _ = read_tensors(folder / "model.safetensors")
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()
