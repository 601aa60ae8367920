"""Files: integer probabilities of a tree, a range coder, a container with checksums."""
