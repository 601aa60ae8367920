"""Coarse-graining, one step at a time: a field becomes a coarser field and the detail that was lost.

Import what you need from the module that holds it.
"""
