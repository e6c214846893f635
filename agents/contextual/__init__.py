"""Contextual bandits on features of user and item."""
