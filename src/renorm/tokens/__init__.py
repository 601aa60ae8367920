"""The discrete wing: images as tokens, tokens as the leaves of a tree of categorical variables, tables by counting."""
