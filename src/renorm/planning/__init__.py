"""Acting in a world of objects: what an action is worth by what is foreseen, and players."""
