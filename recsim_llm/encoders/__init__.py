"""Encoders of texts and pictures, their cache on disk, and the projection into the space of a world."""

from __future__ import annotations

from recsim_llm.paths import home

from .cache import encode_cached
from .colours import ColourEncoder
from .fusion import Fusion, fit_fusion
from .hashing import HashingEncoder
from .images import DEFAULT_IMAGE_ENCODER, ImageEncoder, encode_images, load_image_encoder
from .personas import profile_of, profiles_of
from .projection import Projection, fit_projection
from .stance import split_clauses, split_persona, split_personas
from .text import DEFAULT_ENCODER, Encoder, TextEncoder, load_text_encoder

__all__ = [
    "DEFAULT_ENCODER",
    "DEFAULT_IMAGE_ENCODER",
    "ColourEncoder",
    "Encoder",
    "Fusion",
    "HashingEncoder",
    "ImageEncoder",
    "Projection",
    "TextEncoder",
    "encode_cached",
    "encode_images",
    "fit_fusion",
    "fit_projection",
    "home",
    "load_image_encoder",
    "load_text_encoder",
    "profile_of",
    "profiles_of",
    "split_clauses",
    "split_persona",
    "split_personas",
]
