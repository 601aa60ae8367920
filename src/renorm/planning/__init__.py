"""Acting with a token hierarchy: goals, inference of what leads to them, players."""
