"""Recommenders that read texts with a language model or a tuned text encoder."""
