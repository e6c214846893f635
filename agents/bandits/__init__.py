"""Multi-armed bandits over items."""
