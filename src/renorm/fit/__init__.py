"""How anything with gradients learns: a loop, its checkpoints, its record. It knows no model."""
