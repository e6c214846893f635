"""Language models write new items and personas for a world; new items are released into running environments."""
