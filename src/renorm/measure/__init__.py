"""Tensor in, number out; knows no model. Import what you need from the module that holds it."""
