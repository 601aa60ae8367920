"""Sounds as tokens in time and frequency: learned, told again, generated, and completed."""
