"""Markov chains that keep a given law: all chains of a batch move at once, and no law is known by name."""
