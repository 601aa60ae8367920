"""Cascades: coarse-grain a field, learn the law of what each step took away, draw from coarse to fine."""
