"""Networks that know no physics; import what you need from the module that holds it."""
