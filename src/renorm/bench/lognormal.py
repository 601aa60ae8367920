r"""Lognormal maps, whose every correlation is known: a cascade and a diffusion learn the contrast itself.

Maps of 64 x 64 sites of $\delta = e^{G - \sigma^2/2} - 1$ with $P_G = A k^{-n}/(1 + (k/k_0)^2)$, in which $\sigma^2 =
0.26$ and the skewness is 1.8. The cascade halves the map by Haar's transform down to one site; the law of each level's
details is solved in closed form (`start_quadratic`), level after level, from maps simulated for it, and then the
shapes of its splines are trained by maximum likelihood. It knows that the density is positive (details are shares of a
block's content) but not of which kind its law is: no part takes a logarithm of the field, and none is told that there
is one. The diffusion is a mode diffusion with a small network, trained for as many seconds (of one processor) as the
cascade; that is little for a diffusion. Both are judged by the same measures against exact numbers:

* power of every bin of one fundamental up to half the Nyquist wavenumber, against the exact power of the same modes;
* bispectrum of equilateral and squeezed triangles of shells, against the exact mean over all triples of modes;
* Kolmogorov-Smirnov test of one site of each of 1000 maps against the exact distribution function;
* peaks above two and four standard deviations, beside those of exact maps;
* nats per site on new maps, beside those of the law itself: the difference is the divergence per site.
"""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import norm
from torch import Tensor

from renorm.bench.result import Result
from renorm.cascade.cascade import Cascade
from renorm.cascade.conditionals.heads import SplineHead
from renorm.cascade.conditionals.local import LocalConditional, SiteTop
from renorm.cascade.conditionals.relative_details import RelativeDetails
from renorm.cascade.conditionals.standardised import Standardised
from renorm.cascade.learning.levels import fit_level
from renorm.coarse.wavelet import Wavelet
from renorm.data.fields import Fields
from renorm.diffusion.denoiser import NetworkDenoiser
from renorm.diffusion.mode_diffusion import ModeDiffusion
from renorm.diffusion.objective import denoising_loss
from renorm.diffusion.spec import DiffusionSpec
from renorm.fit.spec import FitSpec
from renorm.lattice import Lattice
from renorm.laws.lognormal import Lognormal
from renorm.laws.lognormal_shells import shell_bispectrum, shell_power
from renorm.measure.bispectrum import bispectrum
from renorm.measure.one_point import kolmogorov_smirnov, peak_counts
from renorm.measure.spectrum import power_spectrum
from renorm.nn.spec import UNetSpec
from renorm.recipes.build import build_model
from renorm.recipes.spec import Recipe

AMPLITUDE = 1.0
SAMPLES, DIFFUSION_SAMPLES, TESTED = 10_000, 1000, 1000
DIFFUSION_STEPS, BATCH_SITES = 12, 2**15
POLISH, RATE, SITES = 60, 5e-3, 4096  # steps on the splines' shapes; coarse sites of a batch
THRESHOLDS = (2.0, 4.0)  # of peaks, in standard deviations


class Networks(NamedTuple):
    """How large the networks of a cascade are, and what each is solved from.

    Attributes:
        period: Spacing of a sublattice, each of which has networks of its own.
        radius: How far they see, in coarse sites.
        width: Hidden units.
        rows: Sites that each is solved from.
        maps: Maps that the sites are taken from, at most.
        batch: Fields at least of which the splines' shapes are learned, a step.
    """

    period: int
    radius: int
    width: int
    rows: int
    maps: int
    batch: int = 8


NETWORKS = Networks(period=4, radius=3, width=256, rows=2**17, maps=2**17)


class Pairs(NamedTuple):
    """Details of a level and the coarse fields that they belong to."""

    detail: Tensor
    coarse: Tensor


def run(seed: int) -> Result:
    """Train both on 64 x 64 maps, and judge their draws and exact ones alike."""
    law = Lognormal((64, 64), AMPLITUDE)
    generator = torch.Generator().manual_seed(seed)
    model, seconds = trained_cascade(law, NETWORKS, generator)
    samples = drawn(model, SAMPLES, generator)
    figures = judged(law, samples, generator) | {"seconds": seconds} | likelihood(law, model, generator)
    table = [{"model": "cascade", "shape": "64 x 64", "samples": len(samples)} | figures]
    diffusion = trained_diffusion(law, seconds, seed, generator)
    other = judged(law, diffusion.sample(DIFFUSION_SAMPLES, generator=generator, steps=DIFFUSION_STEPS), generator)
    other["seconds"] = seconds
    table.append({"model": "diffusion", "shape": "64 x 64", "samples": DIFFUSION_SAMPLES} | other)
    exact = judged(law, law.sample(SAMPLES, generator=generator), generator)
    table.append({"model": "exact draws", "shape": "64 x 64", "samples": SAMPLES} | exact)
    return Result(figures | {f"diffusion_{key}": value for key, value in other.items()}, table, (seed,))


def trained_cascade(law: Lognormal, networks: Networks, generator: torch.Generator) -> tuple[Cascade, float]:
    """Haar's levels down to one site, each with its law, learned one after the other; and the processor's seconds."""
    begun = time.process_time()
    lattice, dim = Lattice(law.shape, "periodic"), len(law.shape)
    number = int(math.log2(min(law.shape)))
    laws = []
    for level in range(number):
        with torch.random.fork_rng():
            torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
            laws.append(_conditional(dim, level, networks))
        data = pairs(law, level, networks, generator)
        _fit(laws[-1], data, networks.batch, generator)
    coarsest = (1, *[n >> number for n in law.shape])
    top = Standardised(SiteTop(coarsest, SplineHead(), symmetric=False), 0, 1, symmetric=False)
    x = data.coarse
    fit_level(top, x, x.flatten(1)[:, :0], steps=300, batch=1024, rate=1e-2, generator=generator)
    return Cascade(lattice, [Wavelet(dim=dim)] * number, laws, top), time.process_time() - begun


def _conditional(dim: int, level: int, networks: Networks) -> RelativeDetails:
    bands = 2**dim - 1
    size = {"period": networks.period, "radius": networks.radius, "width": networks.width, "layers": 1}
    local = LocalConditional(dim, 2, bands, SplineHead(bins=6), symmetric=False, **size)
    return RelativeDetails(Standardised(local, 2, bands, symmetric=False), 2 ** (dim * (level + 1) / 2), dim)


def _fit(part: RelativeDetails, data: Pairs, least: int, generator: torch.Generator) -> None:
    """Means and variances in closed form, then Adam on what shapes the splines, the same at every site."""
    batch = min(len(data.detail), max(least, SITES // data.coarse[0].numel()))
    fit_level(part, data.detail, data.coarse, steps=POLISH, batch=batch, rate=RATE, generator=generator)


def pairs(law: Lognormal, level: int, networks: Networks, generator: torch.Generator) -> Pairs:
    """Details and coarse fields of one level, of so many new maps that each network has its rows."""
    step = Wavelet(dim=len(law.shape))
    places = math.prod(max(1, (n >> level + 1) // networks.period) for n in law.shape)  # a network's, on one map
    number = min(networks.maps, max(2, networks.rows // places))
    found = []
    for begun in range(0, number, 512):
        x = law.sample(min(512, number - begun), generator=generator)
        for _ in range(level):
            x = step.split(x).coarse
        coarse, detail, _ = step.split(x)
        found.append((detail, coarse))
    return Pairs(*(torch.cat(part) for part in zip(*found, strict=True)))


@torch.no_grad()
def drawn(model: Cascade, number: int, generator: torch.Generator) -> Tensor:
    """Maps of a cascade, a few at a time."""
    return torch.cat([model.sample(100, generator=generator) for _ in range(0, number, 100)])[:number]


def trained_diffusion(law: Lognormal, seconds: float, seed: int, generator: torch.Generator) -> ModeDiffusion:
    """A mode diffusion trained on maps simulated on the fly, for so many seconds of one processor."""
    network = UNetSpec(
        width=24, multipliers=(1, 2, 2), blocks=1, attention=(), middle_attention=False, groups=8, dropout=0.0, patch=2
    )
    spec = DiffusionSpec(schedule="calibrated", prediction="preconditioned", isotropic=True, network=network)
    lattice = Lattice(law.shape, "periodic")
    model = build_model(Recipe(model=spec, fit=FitSpec(seed=seed)), lattice)
    model.measure(Fields(law.sample(4096, generator=generator), lattice))
    assert isinstance(model.denoiser, NetworkDenoiser)
    assert model.network is not None
    optimiser = torch.optim.AdamW(model.network.parameters(), lr=2e-3)
    batch = max(2, BATCH_SITES // lattice.sites)
    begun = time.process_time()
    model.network.train()
    while (spent := (time.process_time() - begun) / seconds) < 1:
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * (1 + math.cos(math.pi * spent))
        x = law.sample(batch, generator=generator)
        u = torch.rand(len(x), generator=generator, dtype=torch.float64)
        loss = denoising_loss(
            model.denoiser, x, model.training.quantile(u, model.schedule), torch.randn(x.shape, generator=generator)
        )
        optimiser.zero_grad()
        loss.mean().backward()
        torch.nn.utils.clip_grad_norm_(model.network.parameters(), 1.0)
        optimiser.step()
    model.network.eval()
    return model


def judged(law: Lognormal, x: Tensor, generator: torch.Generator) -> dict[str, float]:
    """All measures of maps against the exact law."""
    site = x[:TESTED, :, *[slice(0, 1)] * len(law.shape)]
    power, three = power_error(law, x), bispectrum_error(law, x)
    sigma = math.sqrt(law.variance)
    heights = torch.tensor([t * sigma for t in THRESHOLDS])
    mine, true = (peak_counts(maps, heights).value for maps in (x, law.sample(2000, generator=generator)))
    return {
        "max_power_error": float(power.abs().max()),
        "max_bispectrum_error": float(three.abs().max()),
        "ks_p": kolmogorov_smirnov(site, distribution(law)).p_value,
        "variance_error": float(x.double().square().mean()) / law.variance - 1,
        "empty_share": float((x <= -1).double().mean()),
        **{f"peaks_{int(t)}_sigma_ratio": float(a / b) for t, a, b in zip(THRESHOLDS, mine, true, strict=True)},
    }


def power_error(law: Lognormal, x: Tensor) -> Tensor:
    """Relative error of the power of every bin of one fundamental, up to half the Nyquist wavenumber."""
    lattice = Lattice(law.shape, "periodic")
    fundamental = 2 * math.pi / max(law.shape)
    edges = (torch.arange(1, max(law.shape) // 4 + 2).double() - 0.5 - 1e-9) * fundamental
    found = sum(power_spectrum(part, lattice, bins=edges).power * len(part) for part in x.split(500)) / len(x)
    return found / shell_power(law, edges) - 1


def bispectrum_error(law: Lognormal, x: Tensor) -> Tensor:
    """Relative error of the bispectrum of equilateral and squeezed triangles of shells, two fundamentals wide."""
    lattice, fundamental = Lattice(law.shape, "periodic"), 2 * math.pi / max(law.shape)
    number = max(2, max(law.shape) // 16)
    edges = (2 * torch.arange(number + 1).double() + 1.5 - 1e-9) * fundamental
    triangles = torch.tensor([(n, n, n) for n in range(number)] + [(0, n, n) for n in range(1, number)])
    found = torch.zeros(len(triangles), dtype=torch.float64)
    for part in x.split(500):
        found += bispectrum(part, lattice, edges=edges, triangles=triangles).value * len(part) / len(x)
    return found / shell_bispectrum(law, edges, triangles) - 1


def distribution(law: Lognormal) -> Callable[[np.ndarray], np.ndarray]:
    r"""Distribution function of $\delta$ at a site, $\Phi\big((\ln(1 + \delta) + \sigma^2/2)/\sigma\big)$."""
    sigma = math.sqrt(law.log_variance)

    def cdf(delta: np.ndarray) -> np.ndarray:
        return norm.cdf((np.log(np.maximum(1 + delta, 1e-300)) + sigma**2 / 2) / sigma)

    return cdf


@torch.no_grad()
def likelihood(law: Lognormal, model: Cascade, generator: torch.Generator) -> dict[str, float]:
    """Nats per site on new maps, beside the exact ones."""
    x = law.sample(500, generator=generator)
    model_nats = torch.cat([model.log_prob(part) for part in x.split(100)])
    sites = math.prod(law.shape)
    exact = -float(law.log_prob(x.double()).mean()) / sites
    found = -float(model_nats.double().mean()) / sites
    return {"nats_per_site": found, "exact_nats_per_site": exact}
