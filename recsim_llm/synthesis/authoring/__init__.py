"""A language model writes items and personas for a world; written items enter running environments."""
