"""RecSim's three environments in this project's shells."""
