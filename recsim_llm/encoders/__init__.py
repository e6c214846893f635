"""Text and image encoders, their cache on disk, and the stance classifier that splits personas into statements."""

from __future__ import annotations

from recsim_llm.encoders.cache import encode_cached
from recsim_llm.encoders.colour_histogram import ColourEncoder
from recsim_llm.encoders.hashing import HashingEncoder
from recsim_llm.encoders.images import DEFAULT_IMAGE_ENCODER, ImageEncoder, encode_images, load_image_encoder
from recsim_llm.encoders.stance import split_clauses, split_persona, split_personas
from recsim_llm.encoders.text import DEFAULT_ENCODER, Encoder, TextEncoder, load_text_encoder
from recsim_llm.paths import home

__all__ = [
    "DEFAULT_ENCODER",
    "DEFAULT_IMAGE_ENCODER",
    "ColourEncoder",
    "Encoder",
    "HashingEncoder",
    "ImageEncoder",
    "TextEncoder",
    "encode_cached",
    "encode_images",
    "home",
    "load_image_encoder",
    "load_text_encoder",
    "split_clauses",
    "split_persona",
    "split_personas",
]
