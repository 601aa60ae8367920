"""Local Gibbs energies of details given the coarse field: linear in what is learned, so learned in closed form."""
