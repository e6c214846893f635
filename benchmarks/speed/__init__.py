"""How fast the simulator and the agents are."""
