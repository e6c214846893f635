"""Building blocks that several families of agents share."""
