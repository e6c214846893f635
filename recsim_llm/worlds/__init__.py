"""The built-in worlds as data."""
