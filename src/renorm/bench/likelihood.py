r"""Bits of Gaussian fields by the bound and by the flow, against the exact entropy.

The fields are k2 and k3 of ``gaussian-nfe`` on 32 x 32 sites, the flow is the paper's (its prior, its regulator), the
denoiser exact. With and without the data's spectrum as the reference, whose part is known in closed form. The error is
the mean over fields of the bits found less the exact bits of the same field, whose mean is the entropy: the same
expectation as the plain difference from the entropy, with less chance.
"""

import math
from functools import partial
from typing import Any

import torch

from renorm.bench.cores import on_all_cores, telling
from renorm.bench.gaussian_nfe import LATTICE, spectra
from renorm.bench.result import Result
from renorm.diffusion.denoiser import GaussianDenoiser
from renorm.diffusion.likelihood import bits_per_dimension, flow_log_prob, variational_bound
from renorm.diffusion.presets import rgdm_images

FIELDS, ROWS = 1024, 128
EVALUATIONS = (20, 50, 100)
WAYS = {"bound": variational_bound, "flow": flow_log_prob}


def run(seed: int) -> Result:
    """Every way, number and reference."""
    places = [(data, way, told, n) for data in spectra() for way in WAYS for told in (True, False) for n in EVALUATIONS]
    found = on_all_cores([partial(_row, *place, seed) for place in places], telling("likelihood", "rows"))
    at = dict(zip(places, found, strict=True))
    last = [at["k3", way, True, EVALUATIONS[-1]] for way in WAYS]
    figures = {"gaussian_bits_error": max(abs(row["error"]) for row in last)}
    for (data, way, told, n), row in at.items():
        if n == EVALUATIONS[-1]:
            key = f"bits_error_{way}_{data}" + ("" if told else "_untold")
            figures |= {key: row["error"], f"{key}_error": row["error_error"]}
    return Result(figures, found, (seed,))


def _row(data: str, way: str, told: bool, evaluations: int, seed: int) -> dict[str, Any]:
    schedule, spectrum = rgdm_images(LATTICE), spectra()[data]
    denoiser, generator = GaussianDenoiser(schedule, spectrum), torch.Generator().manual_seed(seed)
    off = []
    for _ in range(FIELDS // ROWS):
        x = spectrum.sqrt() * torch.randn(ROWS, 1, *LATTICE.shape, generator=generator, dtype=torch.float64)
        exact = -0.5 * (x**2 / spectrum + torch.log(2 * math.pi * spectrum))
        nats = WAYS[way](
            schedule,
            denoiser,
            x,
            generator=generator,
            evaluations=evaluations,
            spectrum=spectrum if told else None,
        )
        off.append(bits_per_dimension((nats - exact).flatten(1).sum(1), LATTICE.sites))
    error = torch.cat(off)
    entropy = 0.5 * (torch.log(2 * math.pi * math.e * spectrum)).mean() / math.log(2)
    return {
        "data": data,
        "way": way,
        "reference": "the data's spectrum" if told else "the prior",
        "evaluations": evaluations,
        "entropy": float(entropy),
        "error": float(error.mean()),
        "error_error": float(error.std() / len(error) ** 0.5),
    }
