"""What a chain of C-alpha atoms is worth: coordinates in angstrom in, number out; knows no model and no file."""
