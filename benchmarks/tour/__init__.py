"""Everything that language and image models do here, at small size."""
