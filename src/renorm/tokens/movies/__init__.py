"""Movies as tokens: learned exactly, generated, completed from a part, and written in few bits."""
