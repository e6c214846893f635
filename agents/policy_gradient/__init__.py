"""Policy gradients and actor-critic methods."""
