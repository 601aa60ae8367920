"""From images to level-1 tokens and back: windows, grey values, a retina."""
