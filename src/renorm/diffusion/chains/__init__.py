"""Mode diffusion of chains of many lengths: one network, a schedule for each length, coarse chains for few modes."""
