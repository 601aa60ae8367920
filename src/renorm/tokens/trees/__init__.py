"""Trees of categorical variables: their shape, exact sums over them, counts on their edges."""
