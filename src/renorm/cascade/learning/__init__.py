"""How a cascade learns: from samples, from an action, from chains that it moves itself."""
