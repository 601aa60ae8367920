"""Clusters of equal particles, coarse-grained by leaving particles out and refined by adding them again."""
