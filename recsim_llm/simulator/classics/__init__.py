"""RecSim's three environments (Ie et al. 2019) as rules of this engine."""
