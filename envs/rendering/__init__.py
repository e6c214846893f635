"""Rendering of an episode: text, picture, and a timeline as one HTML page."""
