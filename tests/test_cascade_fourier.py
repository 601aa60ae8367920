"""Cascades of Fourier shells: independent Gaussian modes, exact beside dense covariances, open and periodic."""

import json
import math

import pytest
import torch

from renorm.bases import basis_for
from renorm.cascade.cascade import Cascade
from renorm.cascade.conditional import CascadeConditional
from renorm.cascade.conditionals.mode_gaussian import ModeGaussian, shell_waves, waves
from renorm.cascade.gaussian import shell_cascade
from renorm.cascade.spec import CascadeSpec, FlowSpec, GaussianSpec, LocalSpec
from renorm.cli import main
from renorm.coarse.checkerboard import Checkerboard
from renorm.coarse.fourier import FourierShell
from renorm.coarse.wavelet import Wavelet
from renorm.errors import DataError, RecipeError
from renorm.lattice import Lattice
from renorm.laws.gaussian_field import GaussianField
from renorm.measure.statistics import ess
from renorm.testing import check_model

SHELLS = CascadeSpec(coarse="fourier", conditional=GaussianSpec())


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def dense(lattice, power):
    """The field's covariance, site by site and channel by channel: U^T C U."""
    channels, sites = lattice.channels, lattice.sites
    unit = torch.eye(sites, dtype=torch.float64).reshape(sites, *lattice.shape)
    u = basis_for(Lattice(lattice.shape, lattice.boundary)).forward(unit).flatten(1)  # sites, modes
    c = torch.einsum("xm,mab,ym->axby", u, power.flatten(0, lattice.dim - 1), u)
    return c.reshape(channels * sites, channels * sites)


def random_power(lattice, seed=0):
    """A positive definite covariance over channels for every wave vector."""
    number = waves(lattice)
    root = torch.randn(int(number.max()) + 1, lattice.channels, lattice.channels, generator=seeded(seed)).double()
    each = root @ root.mT + 0.3 * torch.eye(lattice.channels).double()
    return each[number].reshape(*lattice.shape, lattice.channels, lattice.channels)


@pytest.mark.parametrize(("shape", "levels"), [((16,), 4), ((8, 8), 2), ((6, 8), 1), ((4, 4, 4), 2)])
def test_a_free_field_is_exact_shell_by_shell(shape, levels):
    law = GaussianField(shape, mass_sq=0.05)
    model = shell_cascade(law.lattice, law.covariance[..., None, None], levels)
    x = law.sample(50, generator=seeded(), dtype=torch.float64)
    parts = model.log_prob(x, per_level=True)
    assert parts.shape == (50, levels + 1)
    exact = torch.distributions.MultivariateNormal(
        torch.zeros(x[0].numel(), dtype=torch.float64), dense(law.lattice, law.covariance[..., None, None])
    )
    assert torch.allclose(parts.sum(1), exact.log_prob(x.flatten(1)), rtol=0, atol=1e-10)
    weighted = model.weigh(law, 500, generator=seeded(1))
    assert ess(weighted.log_weight) == pytest.approx(1.0, abs=1e-12)
    assert torch.allclose(weighted.log_weight, torch.full((500,), law.log_z, dtype=torch.float64), rtol=0, atol=1e-10)
    volumes = sum(model.steps[level].split(model.coarsen(x, level)).log_det[0] for level in range(levels))
    entropies = sum(part.entropy for part in model.parts) - volumes
    assert float(entropies) == pytest.approx(float(exact.entropy()), abs=1e-10)
    # the law of a level is that of the lower modes, each with the variance that the step gave it
    coarse = model.coarsen(x, levels)
    lower = law.covariance[tuple(slice(n >> levels) for n in shape)] / 2 ** (len(shape) * levels)
    at = model.lattices[-1]
    marginal = torch.distributions.MultivariateNormal(
        torch.zeros(at.sites, dtype=torch.float64), dense(at, lower[..., None, None])
    )
    found = model.log_prob_level(coarse, levels)
    assert torch.allclose(found, marginal.log_prob(coarse.flatten(1)), rtol=0, atol=1e-10)


@pytest.mark.parametrize("boundary", ["open", "periodic"])
@pytest.mark.parametrize(("shape", "channels"), [((8,), 3), ((4, 8), 2)])
def test_several_channels_open_and_periodic(boundary, shape, channels):
    lattice = Lattice(shape, boundary, channels)
    power = random_power(lattice)
    model = shell_cascade(lattice, power, 2)
    x, log_prob = model.draw(4000, generator=seeded())
    covariance = dense(lattice, power)
    exact = torch.distributions.MultivariateNormal(torch.zeros(len(covariance), dtype=torch.float64), covariance)
    assert torch.allclose(log_prob, exact.log_prob(x.flatten(1)), rtol=0, atol=1e-9)
    assert torch.allclose(model.log_prob(x), log_prob, rtol=0, atol=1e-9)
    square = exact._unbroadcasted_scale_tril.inverse() @ x.flatten(1).T
    assert float(square.square().mean()) == pytest.approx(1.0, abs=5 * math.sqrt(2 / square.numel()))  # draws too
    fitted = Cascade.of(SHELLS, lattice).fit(x)
    numbers = sum(part.covariance[:, 0, 0].numel() * channels * (channels + 1) // 2 for part in fitted.parts)
    lost = (exact.log_prob(x.flatten(1)) - fitted.log_prob(x)).mean()
    assert -2 * numbers / 4000 < lost < 0  # the likeliest of its kind beats the truth on its own samples, barely


def test_solving_takes_the_moments_of_each_wave_vector():
    """Modes of a wave vector share what they say: a cosine and its sine, by hand; two channels, three modes."""
    detail = torch.tensor([[1.0, 2.0, 3.0, 5.0, 0.0, 1.0], [-1.0, 0.0, 1.0, 1.0, 2.0, 1.0]])
    law = ModeGaussian.unfitted(2, torch.tensor([0, 0, 1]))
    law.solve(detail.double(), torch.empty(2, 0))
    first = torch.tensor([[1 + 4 + 1, 5 + 0 - 1 + 0], [4, 25 + 1 + 4]]) / 4
    last = torch.tensor([[9 + 1, 3 + 1], [4, 1 + 1]]) / 2
    assert law.covariance.tolist() == [first.tolist(), last.tolist()]
    assert len(shell_waves(Lattice((4, 4))).unique()) == 12  # open: every mode is its own
    # periodic: 0, 1, 2, 3, 4 on each axis, without the pairs of 0, 1 alone and without (2, 2) as a cosine alone
    assert len(shell_waves(Lattice((8, 8), "periodic")).unique()) == 25 - 4


class White(CascadeConditional):
    """Noise of unit variance, whatever the coarse field."""

    def draw(self, coarse, *, generator):
        raise NotImplementedError

    def log_prob(self, detail, coarse):
        return torch.distributions.Normal(0.0, 1.0).log_prob(detail).flatten(1).sum(1)


def test_steps_of_every_kind_on_each_other_there_and_back():
    """The volume of four steps in turn against the Jacobian by autograd."""
    lattice = Lattice((16, 16), "periodic")
    steps = [Wavelet(), FourierShell(), Wavelet(2), Checkerboard()]
    model = Cascade(lattice, steps, [White()] * 4, White())
    assert [at.event_shape for at in model.lattices] == [(1, 16, 16), (1, 8, 8), (1, 4, 4), (1, 2, 2), (2, 1, 1)]
    assert [at.spacing for at in model.lattices] == [1, 2, 4, 8, 16]
    x = torch.randn(2, 1, 16, 16, generator=seeded(), dtype=torch.float64)
    pyramid = model.encode(x)
    assert torch.allclose(model.decode(pyramid), x, rtol=0, atol=1e-12)
    assert [tuple(d.shape[1:]) for d in pyramid.details[::-1]] == [(3, 8, 8), (48,), (3, 2, 2), (2, 1, 1)]

    def flat(values):
        coarse, details = model.encode(values.reshape(1, 1, 16, 16))
        return torch.cat([part.flatten() for part in (coarse, *details)])

    volume = torch.linalg.slogdet(torch.autograd.functional.jacobian(flat, x[0].flatten())).logabsdet
    white = torch.distributions.Normal(0.0, 1.0).log_prob(flat(x[0])).sum()
    assert float(volume) == pytest.approx(-16 * math.log(2), rel=1e-12)  # the shell's alone, 16 coarse sites
    assert float(model.log_prob(x[:1])) == pytest.approx(float(white + volume), rel=1e-12)


def test_refined_fields_keep_the_lower_modes():
    lattice = Lattice((8, 8), "open", 2)
    model = shell_cascade(lattice, random_power(lattice), 2)
    x = model.sample(5, generator=seeded())
    coarse = model.coarsen(x, 1)
    fine = model.refine(coarse, level=1, generator=seeded(1))
    assert torch.allclose(model.coarsen(fine, 1), coarse, rtol=0, atol=1e-12)
    assert (fine - x).abs().max() > 0.1
    low, factor = (slice(None), slice(None), slice(4), slice(4)), 0.5
    modes = basis_for(lattice).forward(fine)[low] * factor
    assert torch.allclose(modes, basis_for(model.lattices[1]).forward(coarse), rtol=0, atol=1e-12)


def test_the_hallway_and_the_disk(tmp_path):
    law = GaussianField((4, 8), mass_sq=0.2)
    x = law.sample(200, generator=seeded())
    model = Cascade.of(SHELLS, law.lattice).fit(x)
    assert [level.event_shape for level in model.levels] == [(1, 4, 8), (1, 2, 4), (1, 1, 2)]
    check_model(model, x[:3], tmp_path=tmp_path / "model")
    assert torch.equal(Cascade.load(tmp_path / "model").log_prob(x), model.log_prob(x))


def test_what_cannot_be_is_named():
    for conditional in (LocalSpec(), FlowSpec()):
        with pytest.raises(ValueError, match=r"only a conditional of kind 'gaussian' is a law of modes, got"):
            CascadeSpec(coarse="fourier", conditional=conditional)
    with pytest.raises(ValueError, match="heat_bath needs coarse = 'checkerboard'"):
        CascadeSpec(coarse="fourier", conditional=GaussianSpec(), heat_bath=True)
    with pytest.raises(DataError, match=r"every mode needs a variance > 0 .* from 0 to 0"):
        Cascade.of(SHELLS, Lattice((4,))).fit(torch.zeros(5, 1, 4))
    two = Lattice((4,), channels=2)
    with pytest.raises(DataError, match="give more fields"):
        Cascade.of(SHELLS, two).fit(torch.ones(5, 2, 4) * torch.randn(5, 1, 4, generator=seeded()))
    ring = Lattice((4,), "periodic")
    power = torch.tensor([1.0, 2.0, 3.0, 1.0]).double()[:, None, None]
    with pytest.raises(RecipeError, match="levels must be >= 0 steps, got -1"):
        shell_cascade(ring, power, -1)
    with pytest.raises(RecipeError, match=r"power must be real .* got torch.complex128"):
        shell_cascade(ring, power.to(torch.complex128), 1)
    for bad in (torch.tensor([[1.0, 0.5], [0.4, 1.0]]), torch.full((2, 2), math.nan)):
        with pytest.raises(RecipeError, match=r"power must be a covariance over channels, .*got (0\.1|nan) between"):
            shell_cascade(two, bad.expand(4, 2, 2), 1)
    with pytest.raises(RecipeError, match="a cosine and its sine must have the same power"):
        shell_cascade(ring, power, 0)
    with pytest.raises(RecipeError, match=r"a covariance over channels for every mode, \(4, 1, 1\)"):
        shell_cascade(ring, power[:3], 1)
    with pytest.raises(RecipeError, match="multiple of 2 sites"):
        Cascade.of(SHELLS, Lattice((5,)))


@pytest.mark.parametrize(("coarse", "levels"), [("fourier", None), ("fourier", 2), ("fourier", 1), ("haar", None)])
@pytest.mark.parametrize(("mass_sq", "offset"), [(0.1, 0.0), (1e-3, 0.0), (1.0, 3.0)])
def test_what_rounding_leaves_of_a_dead_mode_is_no_mode(coarse, levels, mass_sq, offset):
    """Fields of one channel without their mean, without one wave, and without all of the finest shell."""
    law = GaussianField((8, 8), mass_sq)
    x = law.sample(300, generator=seeded()) + offset
    basis, first = basis_for(law.lattice), torch.zeros(8, 8, dtype=torch.bool)
    first[0, 1:3] = True  # cosine and sine
    spec = CascadeSpec(coarse=coarse, levels=levels, conditional=GaussianSpec())
    Cascade.of(spec, law.lattice).fit(x)
    smooth = torch.ones(8, 8, dtype=torch.bool)
    smooth[:4, :4] = False
    for dead in (
        x - x.mean((2, 3), keepdim=True),
        basis.inverse(basis.forward(x).masked_fill(first, 0.0)),
        basis.inverse(basis.forward(x).masked_fill(smooth, 0.0)),
    ):
        with pytest.raises(DataError, match="leave dead modes out"):
            Cascade.of(spec, law.lattice).fit(dead)


def test_a_steep_spectrum_is_alive():
    """Variances over nine decades in float32, and over twelve where they are given."""
    ring = Lattice((256,), "periodic")
    power = (1 / (3e-4 + ring.k_sq()) ** 2)[:, None, None]
    model = shell_cascade(ring, power, 8)
    x = model.sample(400, generator=seeded()).float()
    gain = (Cascade.of(SHELLS, ring).fit(x).log_prob(x) - model.log_prob(x)).mean()
    assert 0 < gain < 129 / 400  # nats: 129 variances are expected to gain half of that
    shell_cascade(ring, (1 / (1e-5 + ring.k_sq()) ** 2)[:, None, None], 2)


def test_a_recipe_of_shells_fits_measures_and_samples(tmp_path, capsys):
    changes = {
        "model.coarse": "fourier",
        "model.conditional": "{kind = 'gaussian'}",
        "model.heat_bath": "false",
        "fit.teacher": "fields",
        "data.law": "{kind = 'free-field', mass_sq = 0.1}",
        "data.number": "1000",
        "measure.samples": "500",
    }
    run = tmp_path / "run"
    sets = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    assert main(["fit", "recipes/ising4.toml", "--out", str(run), "--quiet", *sets]) == 0
    assert main(["measure", str(run), "--json", "--quiet"]) == 0
    figures = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    exact = GaussianField((4, 4), 0.1).log_z
    assert figures["log_z_exact"] == pytest.approx(exact, abs=1e-9)
    assert abs(figures["log_z"] - exact) < 4 * figures["log_z_error"]
    assert figures["ess"] > 0.98
    assert "A cascade of Fourier shells (gaussian conditionals)" in (run / "report.html").read_text(encoding="utf-8")
    assert main(["sample", str(run), "-n", "4", "--npz", "--out", str(tmp_path / "x.npz")]) == 0
    assert main(["refine", str(run), "-n", "2", "--level", "1", "--out", str(tmp_path / "y.npz")]) == 0
    assert main(["flow", str(run)]) == 0
