"""Agents whose algorithm is Stable-Baselines3's or sb3-contrib's: base classes, policy network, environment adapter."""
