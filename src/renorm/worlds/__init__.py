"""Games to act in, players to compare with, and what they leave: frames, actions, rewards."""
