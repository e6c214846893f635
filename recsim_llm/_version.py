"""Version of the package, kept alone so that build tools read it without importing the package."""

__version__ = "0.1.0"
"""Version of the package."""
