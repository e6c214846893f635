"""Writes item texts, personas and their statements from grammars, and builds the worlds that ship with the package.

``python -m recsim_llm.synthesis.build [WORLD|all]`` rebuilds them; the modules in the order in which they are used:
:mod:`grammar` (templates), :mod:`domain` and :mod:`domains` (what a world is made of), :mod:`characters` (good and bad
providers), :mod:`items`, :mod:`personas`, :mod:`plain` (the same people in other words), :mod:`fidelity` (do encodings
recover what people say?), :mod:`build`.
"""
