"""Clusters of equal particles, coarse-grained by merging near ones and refined by splitting beads."""
