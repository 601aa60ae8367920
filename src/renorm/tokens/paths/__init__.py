"""Token hierarchies in time: states and paths, learned from the distinct tuples that are seen."""
