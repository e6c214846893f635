"""Synthetic items, personas and covers from grammars, and the built-in worlds that are made of them.

``python -m recsim_llm.synthesis.build [WORLD|all]`` rebuilds them; the modules in the order in which they are used:
:mod:`grammar` (templates), :mod:`domain` and :mod:`domains` (what a world is made of), :mod:`provider_quality`,
:mod:`items`, :mod:`personas`, :mod:`free_text_personas` (the same people in other words), :mod:`persona_fidelity` (do
encodings recover what people say?), :mod:`covers`, :mod:`visual_attributes` and :mod:`image_block` (images),
:mod:`build`. In :mod:`authoring` language models write more items and personas for any world.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from recsim_llm.lazy import lazy_exports

if TYPE_CHECKING:
    from recsim_llm.synthesis.build import build_builtin_world, rebuild_worlds
    from recsim_llm.synthesis.items import make_items
    from recsim_llm.synthesis.persona_fidelity import world_fidelity
    from recsim_llm.synthesis.personas import make_personas

__all__ = ["build_builtin_world", "make_items", "make_personas", "rebuild_worlds", "world_fidelity"]

__getattr__ = lazy_exports(
    __name__,
    {
        "build": ("build_builtin_world", "rebuild_worlds"),
        "items": ("make_items",),
        "persona_fidelity": ("world_fidelity",),
        "personas": ("make_personas",),
    },
)
