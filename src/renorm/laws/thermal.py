"""What a temperature is worth: the unit of free energies of molecules."""

import math

import scipy.constants

from renorm.spec import require

__all__ = ["thermal_energy"]


def thermal_energy(temperature: float) -> float:
    """$RT$ in kJ/mol.

    Args:
        temperature: In K.

    Raises:
        ValueError: If it is not positive.

    Example:
        >>> round(thermal_energy(300.0), 6)
        2.494339
    """
    require(0 < temperature < math.inf, "temperature must be > 0 K (energies are told in its units)", temperature)
    return scipy.constants.R * temperature / 1000
