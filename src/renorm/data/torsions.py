r"""Runs of molecular dynamics as torsion angles with weights: columns as PLUMED prints them.

A run that a bias $V$ pushes samples $e^{-(U + V)/k_BT}$. Where the bias hardly changes any more, a frame stands for the
unbiased law with the weight

$$ \ln w = V/(k_BT), \qquad k_BT = RT = 2.494\ \text{kJ/mol at 300 K} . $$

The file ``molecules/ala2_colvar.npz`` holds three runs of alanine dipeptide in vacuum, made of public COLVAR files of
the PLUMED Masterclass 22.5 (https://github.com/luigibonati/masterclass-plumed, BSD-3): ``A`` and ``B``, unbiased, 1 ns
in each of two basins, and ``multi``, 5 ns under one bias that spans 300 to 600 K and 21 umbrellas along a learned
coordinate. ``A`` and ``B`` never leave their basins, so they say nothing of the free-energy difference.
"""

import math
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import scipy.constants
import torch
from jaxtyping import Float64
from torch import Tensor

from renorm.data import store
from renorm.data.npz import read_npz
from renorm.errors import DataError
from renorm.laws.thermal import thermal_energy
from renorm.spec import require

__all__ = ["TorsionRun", "alanine_dipeptide", "read_torsions"]

ALANINE_DIPEPTIDE = Path("molecules", "ala2_colvar.npz")
ALANINE_KELVIN = 300.0
BIAS_UNITS = {"kJ/mol": 1.0, "kcal/mol": scipy.constants.calorie, "kT": None}
"""In kJ/mol; ``kT`` are nats already."""


@dataclass(frozen=True, eq=False)
class TorsionRun:
    """Frames of a run in order of time.

    Args:
        phi, psi: Torsion angles in rad, -pi <= angle < pi.
        log_weights: Of the unbiased law at this temperature, in nats, up to a constant; 0 for a run without bias.
        time: In ps.
        temperature: In K.

    Raises:
        DataError: If there is no frame, columns differ in length, or a value is not finite or out of range.
        ValueError: If the temperature is not positive.

    Example:
        >>> zero = torch.zeros(3, dtype=torch.float64)
        >>> run = TorsionRun(zero - 1, zero + 2, zero, torch.arange(3).double(), 300.0)
        >>> run.angles.shape, round(run.thermal_energy, 6), len(run.frames(run.time >= 1))
        (torch.Size([3, 1, 2]), 2.494339, 2)
    """

    phi: Float64[Tensor, " frames"]
    psi: Float64[Tensor, " _"]
    log_weights: Float64[Tensor, " _"]
    time: Float64[Tensor, " _"]
    temperature: float

    def __post_init__(self) -> None:
        require(0 < self.temperature < math.inf, "temperature must be > 0 K (weights divide by it)", self.temperature)
        columns = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "temperature"}
        if len({len(column) for column in columns.values()}) > 1 or not len(self.phi):
            lengths = ", ".join(f"{name} {len(column)}" for name, column in columns.items())
            raise DataError(f"a run has one value a frame in every column, and a frame at least, got {lengths}")
        for name, column in columns.items():
            if not column.isfinite().all():
                bad = int((~column.isfinite()).nonzero()[0])
                raise DataError(f"{name} must be finite, got {column[bad].item()} at frame {bad}")
        for name in ("phi", "psi"):
            low, high = (float(limit) for limit in columns[name].aminmax())
            if low < -math.pi or high >= math.pi:
                raise DataError(f"{name} must be in rad, -pi <= angle < pi, got {low:g} ... {high:g} (degrees?)")

    def __len__(self) -> int:
        return len(self.phi)

    @property
    def angles(self) -> Float64[Tensor, "frames 1 2"]:
        """Phi and psi as fields of two sites."""
        return torch.stack([self.phi, self.psi], 1)[:, None]

    @property
    def thermal_energy(self) -> float:
        """$RT$, in kJ/mol."""
        return thermal_energy(self.temperature)

    def frames(self, index: slice | Tensor) -> "TorsionRun":
        """Some of the frames: a slice, a mask or places."""
        return TorsionRun(self.phi[index], self.psi[index], self.log_weights[index], self.time[index], self.temperature)


def read_torsions(
    path: Path, *, temperature: float, run: str | None = None, bias_unit: str | None = None
) -> TorsionRun:
    r"""A run from a COLVAR file of PLUMED, or from an ``.npz`` that holds arrays ``NAME`` and ``NAME_fields``.

    Columns ``phi`` and ``psi`` [rad] and ``time`` [ps] must be there. All columns ``*.bias`` are biases and are added:
    $\ln w = \sum V/(RT)$. That is right for biases that hardly change while frames are taken, such as OPES after its
    start, walls and umbrellas, not for the growing bias of metadynamics.

    Args:
        path: The file.
        temperature: Of the thermostat, in K.
        run: Which array of an ``.npz``; a COLVAR file has one run.
        bias_unit: ``"kJ/mol"`` (PLUMED's, unless its UNITS say otherwise), ``"kcal/mol"`` or ``"kT"``. A run with a
            bias needs it, for no COLVAR file names its units.

    Raises:
        DataError: If the file is absent or damaged, lacks a column, holds a value that is not finite, or has a bias of
            an unnamed or unknown unit.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "COLVAR")
        ...     _ = path.write_text("#! FIELDS time phi psi opes.bias\n 0 -1.5 1.0 0\n 1 -1.4 0.9 2.494339\n")
        ...     run = read_torsions(path, temperature=300.0, bias_unit="kJ/mol")
        >>> run.log_weights.round(decimals=4)
        tensor([0., 1.], dtype=torch.float64)
    """
    require(temperature > 0, "temperature must be > 0 K (weights divide by it)", temperature)
    names, values = _arrays(path, run) if path.suffix == ".npz" else _colvar(path)
    if values.ndim != 2 or values.shape[1] != len(names) or not np.issubdtype(values.dtype, np.number):
        raise DataError(f"{path} must hold a column a name, {len(names)}, got {values.dtype} {values.shape}")
    for name in ("time", "phi", "psi"):
        if name not in names:
            raise DataError(f"{path} must have a column '{name}', got {', '.join(names)}")
    column = {name: torch.from_numpy(values[:, i].astype(np.float64)) for i, name in enumerate(names)}
    for name in ("phi", "psi"):
        if column[name].abs().max() > 3.1416:
            raise DataError(f"'{name}' of {path} must be in rad, got {column[name].abs().max():g} (degrees?)")
        column[name] = torch.where(column[name] >= math.pi, column[name] - 2 * math.pi, column[name]).clamp(-math.pi)
    biases = [name for name in names if name.endswith(".bias")]
    log_weights = torch.zeros(len(values), dtype=torch.float64)
    if biases:
        unit = _bias_unit(bias_unit, biases, path) or thermal_energy(temperature)
        log_weights = sum((column[name] for name in biases), log_weights) * unit / thermal_energy(temperature)
    return TorsionRun(column["phi"], column["psi"], log_weights, column["time"], temperature)


def alanine_dipeptide(run: str = "multi") -> TorsionRun:
    """A run of alanine dipeptide at 300 K: ``A``, ``B`` (unbiased) or ``multi``, from ``molecules/ala2_colvar.npz``.

    The bias of ``multi`` is the column ``opes.bias`` in kJ/mol: computed again from the energy, the learned coordinate
    and the free energies that its authors published (file DELTAFS), it is the same to 0.07 kJ/mol. It is 0 in the first
    100 ps and settles within about 500 ps; leave these away (``run.frames(run.time >= 500)``).

    Raises:
        DataError: If the file is not here: it then says where it is looked for. Or there is no such run.

    Source:
        Bonati, PLUMED Masterclass 22.5 (2022), github.com/luigibonati/masterclass-plumed; Invernizzi, Piaggi &
        Parrinello 2020, Phys. Rev. X 10, 041034 (the bias).
    """
    colvar = (
        "give read_torsions a COLVAR file of the PLUMED Masterclass 22.5 (github.com/luigibonati/masterclass-plumed)"
    )
    path = store.single(ALANINE_DIPEPTIDE, otherwise=colvar)
    return read_torsions(path, temperature=ALANINE_KELVIN, run=run, bias_unit="kJ/mol")


def _bias_unit(unit: str | None, biases: list[str], path: Path) -> float | None:
    known = ", ".join(map(repr, BIAS_UNITS))
    if unit is None:
        raise DataError(
            f"'{biases[0]}' of {path} needs its unit, which the file does not name: say bias_unit, one of {known} "
            "(PLUMED's is kJ/mol unless UNITS says otherwise)"
        )
    if unit not in BIAS_UNITS:
        raise DataError(f"bias_unit must be one of {known}, got {unit!r}")
    return BIAS_UNITS[unit]


def _arrays(path: Path, run: str | None) -> tuple[list[str], np.ndarray]:
    if run is None:
        raise DataError(f"{path} may hold several runs: say which, such as run='multi'")
    arrays = read_npz(path, run, f"{run}_fields")
    return [str(name) for name in arrays[f"{run}_fields"].reshape(-1)], arrays[run]


def _colvar(path: Path) -> tuple[list[str], np.ndarray]:
    """Names and values of PLUMED's text: a line ``#! FIELDS name ...``, then a line of numbers a frame."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from None
    names: list[str] = []
    rows: list[list[float]] = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if words[:2] == ["#!", "FIELDS"]:
            if names and names != words[2:]:
                raise DataError(f"line {number} of {path} changes the columns: a file holds one kind of run")
            names = words[2:]
        elif words and not words[0].startswith("#"):
            try:
                rows.append([float(word) for word in words])
            except ValueError:
                rows.append([])
            if len(rows[-1]) != len(names):
                raise DataError(
                    f"line {number} of {path} must hold {len(names)} numbers, one a column, got {line!r:.60}"
                )
    if not names or not rows:
        raise DataError(f"{path} must be a COLVAR file of PLUMED: a line '#! FIELDS ...' and a line of numbers a frame")
    return names, np.array(rows)
