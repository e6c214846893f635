"""Rewrites built-in personas as free text in held-out phrasings, to test the stance splitter.

Frames and names of things come from ``heldout.txt`` and from the phrases that the themes reserve; neither the built-in
paragraphs nor the stance classifier use any of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recsim_llm.synthesis.grammar import TemplateWriter, Theme, polish, read_words
from recsim_llm.synthesis.personas import Persona, Voice

_LINKS = (". ", "; ", ", but ", ", while ", ". ", ", and ")


def free_text_persona(persona: Persona, themes: Sequence[Theme], seed: int = 0) -> str:
    """Writes what a persona likes and dislikes as a paragraph in held-out phrasings.

    Args:
        persona: Whose tastes; their valences are kept, their wording is not.
        themes: The themes of the persona's world.
        seed: Seed of the wording.
    """
    rng = np.random.Generator(np.random.PCG64([seed, int(persona.user_id.rsplit("-", 1)[1])]))
    reserved = {
        (theme.name, facet.name): facet.reserved[0] for theme in themes for facet in theme.facets if facet.reserved
    }
    words = read_words("heldout.txt")
    decade = f"{'twenties thirties forties fifties sixties seventies eighties'.split()[max(persona.age // 10 - 2, 0)]}"
    facts = {"age": (str(persona.age),), "place": (persona.place,), "job": (persona.job,), "decade": (decade,)}
    writer = TemplateWriter((facts, words), rng)
    voice = Voice("first" if rng.random() < 0.6 else persona.gender, persona.name)
    clauses = [
        _clause(writer, voice, statement.valence, reserved[statement.theme, statement.facet])
        for statement in persona.statements
    ]
    clauses = [clauses[int(i)] for i in rng.permutation(len(clauses))]
    texts = [_neutral(writer, voice, "bio"), *clauses]
    texts.insert(int(rng.integers(1, len(texts) + 1)), _neutral(writer, voice, "aside"))
    paragraph = texts[0]
    for text in texts[1:]:
        paragraph += _LINKS[int(rng.integers(len(_LINKS)))] + text
    return polish(paragraph.replace("?, ", "? ").replace("?; ", "? ") + ".")


def _clause(writer: TemplateWriter, voice: Voice, valence: float, thing: str) -> str:
    frame = voice.speak(writer.phrase("like" if valence > 0 else "dislike"))
    return frame.replace("{o}", thing)


def _neutral(writer: TemplateWriter, voice: Voice, kind: str) -> str:
    return writer.expand(voice.speak(writer.phrase(kind), named=True))
