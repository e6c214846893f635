"""Text encoders, their cache on disk, and the projection into the space of a world."""
