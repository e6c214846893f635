"""Generates the items of a built-in world: titles, texts, providers, prices, release times, quality.

Everything comes from one generator with an explicit seed, so that the same seed writes the same catalogue.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from recsim_llm.errors import ConfigError
from recsim_llm.synthesis.domain import Domain
from recsim_llm.synthesis.grammar import Facet, Story, TemplateWriter, Theme, polish, read_themes, read_words
from recsim_llm.synthesis.provider_quality import BAIT, NOISE, WEIGHT, clickbait_rates, provider_qualities

_MARK = re.compile(r"\{(\w+#\w+)")
_FOR_ONE = re.compile(r"([12])\) (.*)")
_ATTEMPTS = 200
_ARRANGED = 4  # stream of what is drawn when all items are there


@dataclass(frozen=True)
class Item:
    """One synthetic item.

    Attributes:
        item_id: Unique name.
        title: One line, unique.
        text: Two to four sentences, unique.
        theme: The theme it belongs to, the catalogue's category.
        facet: The side of the theme it shows.
        provider: Artist, outlet, advertiser or channel.
        price: In the world's currency.
        released_at: [day]; an episode begins at 0.
        quality: Latent, about N(0, 1).
        clickbait: Latent, >= 0; high where the title promises more than the text holds.
    """

    item_id: str
    title: str
    text: str
    theme: str
    facet: str
    provider: str
    price: float
    released_at: float
    quality: float
    clickbait: float


def make_items(domain: Domain, seed: int = 0, count: int | None = None) -> list[Item]:
    """Generates the catalogue of a built-in world.

    Args:
        domain: Which world.
        seed: Seed of everything.
        count: How many items, spread evenly over themes; the domain's own number if not given.

    Raises:
        ConfigError: If there are not that many different texts in the grammar.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    themes = read_themes(domain.file)
    total = domain.items if count is None else count
    qualities = provider_qualities(domain, seed)
    baits = clickbait_rates(qualities, domain.clickbait_share)
    drafts: list[_Draft] = []
    titles: set[str] = set()
    texts: set[str] = set()
    for number in range(total):
        theme = themes[number % len(themes)]
        facet = theme.facets[(number // len(themes)) % len(theme.facets)]
        drafts.append(_fresh(domain, theme, facet, rng, titles, texts, baits))
    order = rng.permutation(total)
    released = domain.released(rng, total)
    items = [
        _finished(domain, rng, number, drafts[draft], float(released[number]), qualities)
        for number, draft in enumerate(order)
    ]
    return (
        items
        if domain.arranged is None
        else domain.arranged(np.random.Generator(np.random.PCG64([seed, _ARRANGED])), items)
    )


@dataclass(frozen=True)
class _Draft:
    """What is written of an item before its numbers are drawn."""

    theme: Theme
    facet: Facet
    title: str
    text: str
    provider: str
    bait: bool
    price: float | None


def _finished(
    domain: Domain, rng: np.random.Generator, number: int, draft: _Draft, day: float, qualities: dict[str, float]
) -> Item:
    clickbait = rng.uniform(0.8, 1.6) if draft.bait else min(rng.exponential(0.08), 0.4)
    price = domain.price(rng, day) if draft.price is None else draft.price
    quality = float(rng.standard_normal())
    if draft.provider in qualities:
        quality = WEIGHT * qualities[draft.provider] + NOISE * quality - (BAIT if draft.bait else 0.0)
    else:
        quality -= 0.9 if draft.bait else -0.1
    return Item(
        item_id=f"{domain.name}-{number:04d}",
        title=draft.title,
        text=draft.text,
        theme=draft.theme.name,
        facet=draft.facet.name,
        provider=draft.provider,
        price=price,
        released_at=round(day, 3),
        quality=round(quality, 3),
        clickbait=round(float(clickbait), 3),
    )


def _fresh(
    domain: Domain,
    theme: Theme,
    facet: Facet,
    rng: np.random.Generator,
    titles: set[str],
    texts: set[str],
    baits: dict[str, float],
) -> _Draft:
    """A title and a text that no item has yet; both are remembered."""
    for _ in range(_ATTEMPTS):
        draft = _draft(domain, theme, facet, rng, baits)
        if draft.title.lower() not in titles and draft.text not in texts:
            titles.add(draft.title.lower())
            texts.add(draft.text)
            return draft
    raise ConfigError(
        f"the grammar of {theme.name!r} has no more new titles; write more templates or ask for fewer items"
    )


def _draft(domain: Domain, theme: Theme, facet: Facet, rng: np.random.Generator, baits: dict[str, float]) -> _Draft:
    of_facet = {  # a list named "price FACET" stands for "price" in texts of that facet
        name.removesuffix(f" {facet.name}"): phrases
        for name, phrases in theme.words.items()
        if name.endswith(f" {facet.name}")
    }
    writer = TemplateWriter((of_facet, theme.words, read_words(domain.words), read_words("words.txt")), rng)
    provider = writer.expand(domain.provider.replace("GROUP", theme.group))
    price = float(writer.expand(domain.listed)) if domain.listed else None
    story = facet.stories[int(rng.integers(len(facet.stories)))]
    which = int(rng.integers(len(story.leads)))
    title = story.titles[which if len(story.titles) == len(story.leads) else int(rng.integers(len(story.titles)))]
    headline = polish(writer.expand(title))
    sentences = [writer.expand(story.leads[which]), *_details(writer, theme, story, which, rng)]
    about = {"facet": (facet.name,), "theme": (theme.name,)}
    sentences = [*sentences[:3], TemplateWriter((about, *writer.words), rng).expand(domain.filing)]
    bait = bool(rng.random() < baits.get(provider, domain.clickbait_share))
    if bait:
        about = {"title": (headline,), "facet": (facet.name,), "theme": (theme.name,)}
        headline = polish(TemplateWriter((about, *writer.words), rng).expand(domain.bait))
    return _Draft(theme, facet, headline, polish(" ".join(sentences)), provider, bait, price)


def _details(writer: TemplateWriter, theme: Theme, story: Story, which: int, rng: np.random.Generator) -> list[str]:
    """One to three further sentences that name nobody who was not introduced."""
    own = [_FOR_ONE.sub(r"\2", detail) for detail in story.details if _suits(detail, which)]
    own = [detail for detail in own if all(writer.knows(mark) for mark in _MARK.findall(detail))]
    extras = [extra for extra in theme.extras if all(writer.knows(mark) for mark in _MARK.findall(extra))]
    length = int(rng.choice([1, 2, 3], p=[0.25, 0.45, 0.3]))
    picked = [own[int(i)] for i in rng.permutation(len(own))[: min(length, 2)]]
    if len(picked) < length or rng.random() < 0.25:
        picked = [*picked[: length - 1], extras[int(rng.integers(len(extras)))]]
    return [writer.expand(sentence) for sentence in picked[:3]]


def _suits(detail: str, which: int) -> bool:
    found = _FOR_ONE.match(detail)
    return found is None or int(found.group(1)) == which + 1
