"""Vectors that tell more of residues than their letters: of a language model, or made elsewhere."""
