"""Laws as data: specs, simulations against exact numbers, and what a recipe may ask for."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from renorm.bases import basis_for
from renorm.data import DataSpec, load
from renorm.errors import DataError, RecipeError
from renorm.laws.build import make_law
from renorm.laws.chain import DoubleWellChain
from renorm.laws.gaussian_field import GaussianField
from renorm.laws.ising import Ising
from renorm.laws.kaufman import CRITICAL_BETA, kaufman_energy
from renorm.laws.lognormal import Lognormal
from renorm.laws.phi4 import Phi4
from renorm.laws.simulate import simulate
from renorm.laws.spec import DoubleWellSpec, FreeFieldSpec, IsingSpec, LognormalSpec, Phi4Spec
from renorm.spec import from_toml, override, to_toml

LAWS = [
    (IsingSpec(), (4, 6), Ising((4, 6), CRITICAL_BETA)),
    (Phi4Spec(kappa=0.3, lam=0.5, c2=0.2), (4, 4), Phi4((4, 4), 0.3, 0.5, 0.2)),
    (FreeFieldSpec(mass_sq=0.3), (6,), GaussianField((6,), 0.3)),
    (
        LognormalSpec(amplitude=0.3, index=1.0, knee=2.0, zero_power=0.1),
        (4, 4, 4),
        Lognormal((4, 4, 4), 0.3, 1.0, 2.0, 0.1),
    ),
    (DoubleWellSpec(stiffness=2.0, barrier=3.0), (6,), DoubleWellChain(6, 2.0, 3.0)),
]


def _near(values, exact):
    """Independent values whose mean is within four standard errors of the exact one."""
    values = values.double()
    return abs(float(values.mean()) - exact) < 4 * float(values.std()) / math.sqrt(len(values))


@pytest.mark.parametrize(("spec", "shape", "law"), LAWS, ids=lambda v: getattr(v, "kind", ""))
def test_specs_become_laws_and_data(spec, shape, law):
    assert make_law(spec, shape) == law
    data = DataSpec("law", shape=shape, number=30, seed=3, boundary="periodic", law=spec)
    assert from_toml(DataSpec, to_toml(data)) == data
    train, test = load(data), load(data, "test")
    assert (len(train), len(test)) == (30, 3)
    assert train.lattice.event_shape == (1, *shape)
    assert train.lattice.boundary == "periodic"
    assert train.values.dtype == torch.float32
    assert torch.equal(train.values, load(data).values)
    assert torch.equal(train.values, simulate(law, 30, generator=torch.Generator().manual_seed(6)))
    further = {"thin": 40}  # test fields lie further apart on their chain
    assert torch.equal(test.values, simulate(law, 3, generator=torch.Generator().manual_seed(7), **further))


def test_a_recipe_names_a_law_by_its_kind():
    text = 'name = "law"\nboundary = "periodic"\nshape = [8, 8]\nnumber = 4\n[law]\nkind = "phi4"\nkappa = 0.2\n'
    spec = from_toml(DataSpec, text)
    assert spec.law == Phi4Spec(kappa=0.2)
    assert override(spec, {"law.kappa": "0.25"}).law == Phi4Spec(kappa=0.25)
    assert len(load(spec)) == 4
    with pytest.raises(RecipeError, match=r"law.kind must be one of 'ising', 'phi4', .*, got 'potts'"):
        from_toml(DataSpec, text.replace("phi4", "potts"))


def test_spins_at_the_critical_point_against_kaufman(generator):
    """Energy of 16^2 exactly; enumeration gives the magnetisation of 4^2."""
    law, chains = Ising((16, 16), CRITICAL_BETA), 500
    spins = simulate(law, 2 * chains, generator=generator, chains=chains)
    energy = (-law(spins) / (-CRITICAL_BETA * 256)).reshape(2, chains).mean(0)
    assert _near(energy, kaufman_energy((16, 16), CRITICAL_BETA))
    small = simulate(Ising((4, 4), CRITICAL_BETA), 4000, generator=generator)
    assert _near(small.flatten(1).mean(1).square(), 0.7613589085686718)


def test_fields_against_the_transfer_matrix(generator):
    """The 4 x 4 torus at the critical coupling by sweeps, and an odd torus, which has no sweeps, by HMC."""
    fields = simulate(Phi4((4, 4), 0.34, 1.0), 4000, generator=generator)
    assert _near(fields.square().flatten(1).mean(1), 0.86397793)
    assert _near(fields.flatten(1).mean(1).square() * 16, 9.86297193)
    odd = Phi4((3, 3), 0.34, 1.0)
    fields, exact = simulate(odd, 3000, generator=generator), odd.moments()
    assert _near(fields.square().flatten(1).mean(1), exact.phi_sq)
    assert _near(fields.flatten(1).mean(1).square() * 9, exact.chi)


@pytest.mark.parametrize("sites", [6, 5])
def test_double_wells_against_the_transfer_matrix(sites, generator):
    law = DoubleWellChain(sites, 1.0, 1.0)
    x = simulate(law, 4000, generator=generator)
    assert _near(x.square().flatten(1).mean(1), law.transfer.mean(np.square))
    assert _near(x.square().square().flatten(1).mean(1), law.transfer.mean(lambda v: v**4))
    assert _near((x > 0).double().flatten(1).mean(1), 0.5)


def test_exact_draws(generator):
    num = 10000
    law = GaussianField((4, 4), 0.2)
    modes = basis_for(law.lattice).forward(simulate(law, num, generator=generator))[:, 0].double()
    assert float(((modes**2).mean(0) / law.covariance - 1).abs().max()) < 4 * math.sqrt(2 / num)
    maps = Lognormal((8, 8), 0.3)
    delta = simulate(maps, num, generator=generator)
    assert _near(delta.square().flatten(1).mean(1), maps.variance)


def test_neighbouring_fields_come_from_different_chains(generator):
    """With a law that hardly moves between kept fields, fields of one chain are alike, neighbours are not."""
    law = Ising((8, 8), 0.2)
    x = simulate(law, 60, generator=generator, chains=20, thin=1).flatten(1)
    assert x.shape == (60, 64)
    cold = simulate(Ising((8, 8), 3.0), 10, generator=generator, chains=4)
    assert bool((cold.flatten(1).mean(1).abs() == 1).all())
    assert len(simulate(law, 7, generator=generator, chains=3)) == 7


def test_bad_input():
    periodic = {"name": "law", "boundary": "periodic"}
    with pytest.raises(
        RecipeError, match=r"data.boundary must be 'periodic' for the law .*torus, or a ring, got 'open'"
    ):
        DataSpec("law", law=IsingSpec())
    with pytest.raises(RecipeError, match=r"data.law and name = 'law' come together .* got no law"):
        DataSpec(**periodic)
    with pytest.raises(RecipeError, match=r"come together .* got a law with name = 'gaussian'"):
        DataSpec("gaussian", law=IsingSpec())
    with pytest.raises(RecipeError, match=r"shape must be two sides for spins .* got \(4,\)"):
        load(DataSpec(**periodic, shape=(4,), law=IsingSpec()))
    with pytest.raises(RecipeError, match=r"shape must be two sides >= 2 .* got \(1, 4\)"):
        load(DataSpec(**periodic, shape=(1, 4), law=IsingSpec()))
    with pytest.raises(RecipeError, match=r"shape must be one axis of 1 or more for double wells .* got \(4, 4\)"):
        load(DataSpec(**periodic, shape=(4, 4), law=DoubleWellSpec()))
    with pytest.raises(RecipeError, match="at lam = 0 every mode needs a positive quadratic part"):
        load(DataSpec(**periodic, law=Phi4Spec(kappa=0.3, lam=0.0, c2=0.1)))
    with pytest.raises(DataError, match="has 1 channels, which cannot become 3"):
        load(DataSpec(**periodic, number=1, channels=3, law=FreeFieldSpec()))
    for make, message in (
        (lambda: IsingSpec(beta=-1.0), "beta must be >= 0 and finite"),
        (lambda: Phi4Spec(lam=-1.0), r"lam must be >= 0 \(the action has no lower bound otherwise\), got -1"),
        (lambda: Phi4Spec(kappa=math.inf), "kappa must be finite"),
        (lambda: Phi4Spec(c2=math.inf), "c2 must be finite"),
        (lambda: FreeFieldSpec(mass_sq=0.0), "mass_sq must be > 0"),
        (lambda: LognormalSpec(amplitude=0.0), "amplitude must be > 0"),
        (lambda: LognormalSpec(index=math.inf), "index must be finite"),
        (lambda: LognormalSpec(knee=0.0), "knee must be > 0"),
        (lambda: LognormalSpec(zero_power=-1.0), "zero_power must be >= 0"),
        (lambda: DoubleWellSpec(stiffness=0.0), "stiffness must be > 0"),
        (lambda: DoubleWellSpec(barrier=0.0), "barrier must be > 0"),
        (lambda: replace(IsingSpec(), beta=math.nan), "beta must be >= 0"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    law, generator = Ising((4, 4), 0.4), torch.Generator()
    for values, message in (
        ({"num": 0}, "num must be >= 1"),
        ({"num": 1, "chains": 0}, "chains must be >= 1"),
        ({"num": 1, "burn_in": 0}, "burn_in must be >= 1"),
        ({"num": 1, "thin": 0}, "thin must be >= 1"),
        ({"num": 1, "clusters": "wolff", "thin": 1}, "clusters = 'wolff' needs burn_in and thin"),
    ):
        with pytest.raises(ValueError, match=message):
            simulate(law, generator=generator, **values)
