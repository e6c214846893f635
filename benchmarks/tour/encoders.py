"""The encoders at small size: text in float32 and int8, pictures, their fusion, and the cache; a part of the tour."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm.encoders import HashingEncoder, encode_cached, encode_images, load_image_encoder
from recsim_llm.encoders import load_text_encoder as load
from recsim_llm.encoders.quantised import loss
from recsim_llm.encoders.text import TextEncoder
from recsim_llm.synthesis.build import ITEM_TEXT
from recsim_llm.synthesis.domains import domain_named
from recsim_llm.synthesis.persona_fidelity import fidelity_of_profiles
from recsim_llm.synthesis.personas import Persona, make_personas
from recsim_llm.synthesis.visual_attributes import ATTRIBUTE_OF_PHRASE
from recsim_llm.worlds.embedding_space import fit_embedding_space, item_texts
from recsim_llm.worlds.world import World, load_world

Say = Callable[[str], None]

PER_THEME = 3
PEOPLE = 30
TEXTS = 5_000


def small(say: Say) -> dict[str, Any]:
    """Runs every encoder on a part of the built-in shop.

    Args:
        say: Is told what was measured, line by line.

    Returns:
        Speeds [1/s], what int8 loses, what the fusion keeps, and how long the cache takes [s].

    Raises:
        MissingExtraError: If torch, transformers or the convolutional network is not installed.
    """
    world = load_world("ecommerce")
    return {"text": _text(world, say), "image": _image(world, say), "cache": _cache(say)}


def _text(world: World, say: Say) -> dict[str, Any]:
    full, small_one = load(), load(quantised=True)
    rows = sample(world)
    items = item_texts(
        ITEM_TEXT, [world.catalog.category[row] for row in rows], [world.catalog.text[row] for row in rows]
    )
    assert isinstance(full, TextEncoder)
    assert isinstance(small_one, TextEncoder)
    lost = loss(full, small_one, items)
    people = make_personas(domain_named("ecommerce"), seed=2025, count=PEOPLE)
    category = [world.catalog.category[row] for row in rows]
    auc = {one.name: _auc(one, items, category, people) for one in (full, small_one)}
    say(
        f"int8 text encoder: cosine to float32 {lost.cosine:.4f}, neighbours {lost.neighbours:.3f}, "
        f"{lost.speed:.1f} times as fast, {lost.megabytes[1]:.0f} instead of {lost.megabytes[0]:.0f} MB"
    )
    for name, (liked, disliked) in auc.items():
        say(f"{name}: AUC of liked against neutral themes {liked:.3f}, of disliked {disliked:.3f}")
    return {"cosine": lost.cosine, "neighbours": lost.neighbours, "speed": lost.speed, "auc": auc}


def sample(world: World) -> list[int]:
    """The first few items of each theme."""
    topic = world.catalog.topic
    return [
        int(row) for number in range(len(world.catalog.topics)) for row in np.flatnonzero(topic == number)[:PER_THEME]
    ]


def _auc(encoder: TextEncoder, items: list[str], category: list[str], people: list[Persona]) -> tuple[float, float]:
    """AUC of liked and of disliked themes against neutral ones, from encodings as they are."""
    encodings = encoder.encode(items)
    middle = encodings.mean(axis=0)
    said = [[(s.object, s.valence) for s in person.statements] for person in people]
    things = sorted({thing for statements in said for thing, _ in statements if thing not in ATTRIBUTE_OF_PHRASE})
    vector = dict(zip(things, encoder.encode(things) - middle, strict=True))
    profile: NDArray[Any] = np.stack(
        [np.sum([valence * vector[thing] for thing, valence in statements], axis=0) for statements in said]
    )
    liked, disliked = [set(person.liked) for person in people], [set(person.disliked) for person in people]
    found = fidelity_of_profiles(profile, encodings - middle, category, liked, disliked)
    return found.liked, found.disliked


def _image(world: World, say: Say) -> dict[str, Any]:
    encoder = load_image_encoder()
    rows = sample(world)[::2]
    assert world.item_images is not None
    files = [world.item_images.png(str(world.catalog.image[row])) for row in rows]
    begin = time.perf_counter()
    shown = encode_images(encoder, files, [world.catalog.item_id[row] for row in rows])
    took = time.perf_counter() - begin
    words = encode_cached(load(), [world.catalog.text[row] for row in rows])
    space = fit_embedding_space(words, shown, width=16, image_width=4)
    fused = space.embed(words, shown).astype(np.float64)
    share = fused[:, 12:].var(axis=0).sum() / fused.var(axis=0).sum()
    say(f"{encoder.name}: {len(files)} covers, {len(files) / took:.1f} a second; image share {share:.2f}")
    return {"pictures": len(files), "seconds": took, "image_share": float(share)}


def _cache(say: Say) -> dict[str, Any]:
    texts = [f"text {number} of many about subject {number % 97}" for number in range(TEXTS)]
    seconds = []
    for _ in range(2):
        begin = time.perf_counter()
        encode_cached(HashingEncoder(), texts)
        seconds.append(time.perf_counter() - begin)
    say(f"cache: {TEXTS:,} texts in {seconds[0]:.2f} s, again in {seconds[1]:.2f} s")
    return {"texts": TEXTS, "first_seconds": seconds[0], "again_seconds": seconds[1]}
