"""Text encoders, their cache on disk, and the projection into the space of a world."""

from __future__ import annotations

from .cache import encode_cached, home
from .hashing import HashingEncoder
from .personas import profile_of, profiles_of
from .projection import Projection, fit_projection
from .stance import split_clauses, split_persona, split_personas
from .text import DEFAULT_ENCODER, Encoder, TextEncoder, load_text_encoder

__all__ = [
    "DEFAULT_ENCODER",
    "Encoder",
    "HashingEncoder",
    "Projection",
    "TextEncoder",
    "encode_cached",
    "fit_projection",
    "home",
    "load_text_encoder",
    "profile_of",
    "profiles_of",
    "split_clauses",
    "split_persona",
    "split_personas",
]
