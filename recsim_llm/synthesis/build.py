"""Builds the built-in worlds from their grammars: ``python -m recsim_llm.synthesis.build [WORLD|all]``.

    grammar -> items, covers and personas -> the pipeline of :mod:`recsim_llm.worlds.build` -> measures -> folder

The texts depend on :data:`SEED` alone. The encodings come from the real text encoder and may differ in their last bits
between processors, which is why the worlds ship as data and a test compares a sample with what the encoder says here.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsim_llm.datasets import Items, Users
from recsim_llm.encoders import DEFAULT_ENCODER, Encoder, ImageEncoder, load_image_encoder, load_text_encoder
from recsim_llm.encoders.stance import SHIPPED, fit_stance, split_personas, write_stance
from recsim_llm.errors import RecsimError
from recsim_llm.files import write_file
from recsim_llm.synthesis import demographics as people_tables
from recsim_llm.synthesis.domains import DOMAINS, Domain, domain_named
from recsim_llm.synthesis.free_text_personas import free_text_persona
from recsim_llm.synthesis.grammar import read_themes
from recsim_llm.synthesis.image_block import EncodedCovers, attribute_auc, encode_covers
from recsim_llm.synthesis.items import Item, make_items
from recsim_llm.synthesis.persona_fidelity import Fidelity, fidelity_of_profiles, world_fidelity
from recsim_llm.synthesis.personas import Persona, make_personas
from recsim_llm.synthesis.provider_quality import provider_qualities
from recsim_llm.worlds.build import WorldInputs, make_world
from recsim_llm.worlds.catalog import empty_column
from recsim_llm.worlds.embedding_space import EmbeddingSpace, persona_profiles
from recsim_llm.worlds.preference_model import LatentColumns, PreferenceSettings
from recsim_llm.worlds.world import BUILT_IN, World

SEED = 2025
WIDTH = 64
ITEM_TEXT = "category: text"
"""What is encoded of an item: a catalogue shows the category beside the text, so the encoder reads both."""
PRICE_EFFECT = 0.3
"""Standard deviation of price times price sensitivity over users and items [logit]."""
WALLET_SPREAD = 0.6
"""Standard deviation of the logarithm of what users can spend."""
EARNERS = ("35-44", "45-54", "55-64")
"""Age bands that can spend twice as much as the others."""
PLAIN_SAMPLE = 500
"""Personas whose plain paragraphs are measured when a world is built."""


def build_builtin_world(
    name: str,
    encoder: Encoder | None = None,
    progress: bool = False,
    plain_sample: int = PLAIN_SAMPLE,
    image_encoder: ImageEncoder | None = None,
) -> World:
    """Builds one of the built-in worlds in memory.

    Args:
        name: One of :data:`recsim_llm.synthesis.domains.DOMAINS`.
        encoder: All-MiniLM-L6-v2 if not given.
        progress: Whether to show progress bars.
        plain_sample: Personas whose plain paragraphs are measured; 0 measures none, for which another encoder
            needs no stance classifier.
        image_encoder: EfficientNet-Lite0 if not given; of worlds with covers.

    Raises:
        ConfigError: If there is no such world.
        MissingExtraError: If torch or transformers is not installed, or the network for pictures where there are any.
    """
    domain = domain_named(name)
    model = encoder or load_text_encoder(DEFAULT_ENCODER)
    items, personas = make_items(domain, SEED), make_personas(domain, SEED)
    covers = encode_covers(items, image_encoder or load_image_encoder(), SEED, progress) if domain.covers else None
    inputs = _inputs(domain, items, personas, covers)
    world = make_world(inputs, model, PreferenceSettings(seed=SEED), width=WIDTH, progress=progress)
    plain = {}
    if plain_sample:
        plain["plain_paragraphs"] = free_text_fidelity(world, personas[:plain_sample], model, progress).as_dict()
    metrics = {
        "built_in_personas": world_fidelity(world.half()).as_dict(),
        **plain,
        "shares_of_variance": dict(world.preference_model.shares),
        "projection_explains": _explained(world),
        **_images_explained(world, covers),
        "proportions": {
            "gender": people_tables.GENDERS,
            "age_band": people_tables.AGE_BANDS,
            "region": people_tables.REGIONS,
        },
        "seed": SEED,
    }
    return dataclasses.replace(world, metrics=metrics)


def free_text_fidelity(
    world: World, personas: Sequence[Persona], encoder: Encoder, progress: bool = False, seed: int = 0
) -> Fidelity:
    """Fidelity of profiles when personas come as free text in held-out phrasings, through the stance splitter.

    Args:
        world: The built-in world.
        personas: Some of its personas, as :func:`recsim_llm.synthesis.personas.make_personas` writes them.
        encoder: The world's encoder.
        progress: Whether to show progress bars.
        seed: Seed of the wording.
    """
    themes = read_themes(DOMAINS[world.name].file)
    texts = [free_text_persona(persona, themes, seed) for persona in personas]
    space = EmbeddingSpace.of(world.projection, world.catalog.blocks)
    profile = persona_profiles(encoder, split_personas(texts, encoder, progress), space.text, progress)
    liked = [set(persona.liked) for persona in personas]
    disliked = [set(persona.disliked) for persona in personas]
    return fidelity_of_profiles(profile, world.catalog.embedding, world.catalog.category, liked, disliked)


def _inputs(
    domain: Domain, items: Sequence[Item], personas: Sequence[Persona], covers: EncodedCovers | None
) -> WorldInputs:
    """Items and personas as the pipeline takes them."""
    price = np.array([item.price for item in items], dtype=np.float32)
    quality = np.array([item.quality for item in items])
    bids = _economy(domain, [item.provider for item in items])
    return WorldInputs(
        name=domain.name,
        items=Items(
            item_id=[item.item_id for item in items],
            text=[item.text for item in items],
            title=[item.title for item in items],
            category=[item.theme for item in items],
            provider=[item.provider for item in items],
            price=price.astype(np.float64),
            released_at=np.array([item.released_at for item in items]),
            image=list(covers.files) if covers is not None else [None] * len(items),
        ),
        users=Users(
            user_id=[persona.user_id for persona in personas],
            persona=[persona.text for persona in personas],
            statements=[persona.all_statements for persona in personas],
            gender=[persona.gender for persona in personas],
            age_band=[persona.age_band for persona in personas],
            region=[persona.region for persona in personas],
        ),
        latent=LatentColumns(
            quality=((quality - quality.mean()) / quality.std()).astype(np.float32),
            clickbait=np.array([item.clickbait for item in items], dtype=np.float32),
            price_sensitivity=_price_sensitivity(personas, price),
            bid=bids.bid,
            bid_event=bids.bid_event,
            provider_budget=bids.provider_budget,
            wallet=_wallet(domain, personas),
        ),
        images=None if covers is None else covers.inputs(personas),
        item_text=ITEM_TEXT,
        statements=[[(said.object, said.valence) for said in persona.statements] for persona in personas],
    )


def _explained(world: World) -> float:
    """Share of the variance of the encodings that the components keep (encodings have length one)."""
    first, last = world.catalog.blocks["text"]
    projection = EmbeddingSpace.of(world.projection, world.catalog.blocks).text
    kept = float(np.square(world.catalog.embedding[:, first:last] / projection.scale).sum(axis=1).mean())
    return round(kept / (1.0 - float(np.square(projection.mean).sum())), 4)


def _images_explained(world: World, covers: EncodedCovers | None) -> dict[str, Any]:
    """What the image block keeps of the encodings of covers, and how well it finds what people say of looks."""
    projection = EmbeddingSpace.of(world.projection, world.catalog.blocks).image
    if covers is None or projection is None:
        return {}
    first, last = world.catalog.blocks["image"]
    block = world.catalog.embedding[:, first:last]
    kept = float(np.square(block / projection.scale).sum()) / float(covers.encodings.var(axis=0).sum() * len(block))
    vectors = projection.apply(np.stack(list(covers.directions.values())), centre=False)
    return {
        "image_projection_explains": round(kept, 4),
        "auc_of_looks": attribute_auc(block, covers.attributes, vectors),
    }


class _Bids(NamedTuple):
    """What advertisers pay: [I], what they are charged for [I], and [G] in the catalogue's order of providers."""

    bid: NDArray[np.float32]
    bid_event: NDArray[np.float32]
    provider_budget: NDArray[np.float32]


def _economy(domain: Domain, providers: Sequence[str]) -> _Bids:
    """Draws bids and budgets; all empty without advertisers."""
    if domain.economy is None:
        return _Bids(empty_column(), empty_column(), empty_column())
    drawn = domain.economy(np.random.Generator(np.random.PCG64([SEED, 8])), providers, provider_qualities(domain, SEED))
    budget = np.array([drawn.budget[name] for name in sorted(set(providers))], dtype=np.float32)
    return _Bids(drawn.bid.astype(np.float32), drawn.bid_event.astype(np.float32), budget)


def _price_sensitivity(personas: Sequence[Persona], price: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log-normal [logit / currency], twice as high for the youngest as for the others."""
    rng = np.random.Generator(np.random.PCG64([SEED, 7]))
    young = np.array([2.0 if persona.age_band == "18-24" else 1.0 for persona in personas])
    values = young * rng.lognormal(0.0, 0.5, len(personas))
    effect = float(np.sqrt(np.square(values).mean()) * price.std())
    return (values * (PRICE_EFFECT / effect if effect > 0 else 0.0)).astype(np.float32)  # nothing costs anything


def _wallet(domain: Domain, personas: Sequence[Persona]) -> NDArray[np.float32]:
    """What each user can spend in 30 days, log-normal; nothing is said where money does not matter."""
    rng = np.random.Generator(np.random.PCG64([SEED, 10]))
    earning = np.array([2.0 if persona.age_band in EARNERS else 1.0 for persona in personas])
    return (domain.wallet * earning * rng.lognormal(0.0, WALLET_SPREAD, len(personas))).astype(np.float32)


def save_builtin_world(world: World, folder: Path = BUILT_IN) -> Path:
    """Saves a built-in world in the package's data folder, as float16."""
    return world.save(folder / world.name, overwrite=True, half=True)


def save_stance(encoder: Encoder, progress: bool = False) -> Path:
    """Fits the stance classifier and saves it in the package's data folder."""
    with resources.as_file(resources.files("recsim_llm.encoders")) as folder:
        path = Path(folder) / SHIPPED
        write_file(path, write_stance(fit_stance(encoder, progress), encoder))
    return path


def summary_lines(world: World) -> list[str]:
    """The measurements of a built-in world as lines of text."""
    metrics = world.metrics
    kinds = (("built-in personas", "built_in_personas"), ("plain paragraphs", "plain_paragraphs"))
    lines = [f"{world.name}: {len(world.catalog)} items, {len(world.population)} personas"]
    for label, key in kinds:
        found = metrics[key]
        lines.append(
            f"  {label} ({found['personas']}): AUC of liked against neutral themes {found['auc_liked']:.3f}, "
            f"of disliked against neutral {found['auc_disliked']:.3f}"
        )
    shares = ", ".join(f"{name} {share:.2f}" for name, share in metrics["shares_of_variance"].items())
    lines.append(f"  shares of variance: {shares}")
    blocks = world.catalog.blocks
    kept = {"text": metrics["projection_explains"], "image": metrics.get("image_projection_explains")}
    for name, (first, last) in blocks.items():
        lines.append(f"  {last - first} components keep {kept[name]:.0%} of the variance of the encodings ({name})")
    if "auc_of_looks" in metrics:
        found = metrics["auc_of_looks"]
        worst = min(found, key=found.__getitem__)
        mean = sum(found.values()) / len(found)
        lines.append(f"  AUC of what is said of looks: mean {mean:.3f}, lowest {found[worst]:.3f} ({worst})")
    return lines


def rebuild_worlds(
    names: Sequence[str], say: Callable[[str], None], folder: Path = BUILT_IN, progress: bool = True
) -> None:
    """Builds and saves built-in worlds.

    Args:
        names: Worlds by name; "all" stands for every one and for the stance classifier.
        say: Is told what was measured, line by line.
        folder: Where worlds are saved.
        progress: Whether to show progress bars.
    """
    wanted = list(DOMAINS) if "all" in names else [domain_named(name).name for name in names]
    encoder = load_text_encoder(DEFAULT_ENCODER)
    if folder == BUILT_IN and "all" in names:
        save_stance(encoder, progress)
    for name in wanted:
        world = build_builtin_world(name, encoder, progress)
        path = save_builtin_world(world, folder)
        size = sum(file.stat().st_size for file in path.iterdir())
        for line in summary_lines(world):
            say(line)
        say(f"  saved {path} ({size / 1e6:.2f} MB)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m recsim_llm.synthesis.build", description=str(__doc__).split("\n")[0]
    )
    parser.add_argument("world", nargs="?", default="all", help=f"{', '.join(DOMAINS)} or all (default)")
    parser.add_argument("--out", type=Path, default=BUILT_IN, help="folder that holds the worlds")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    options = parser.parse_args(arguments)
    try:
        rebuild_worlds([options.world], lambda line: print(line), options.out, progress=not options.quiet)
    except RecsimError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
