"""Ways to grow a tree above tokens: pyramids of blocks, styles, exemplars, hidden trees."""
