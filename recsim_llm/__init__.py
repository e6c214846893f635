"""recsim_llm: Gymnasium environments for recommender systems whose users' tastes come from language-model encodings.

Importing the package registers every environment id and loads nothing heavy.
"""

from typing import TYPE_CHECKING

from recsim_llm._version import __version__
from recsim_llm.envs.registration import register_all
from recsim_llm.lazy import lazy_exports

if TYPE_CHECKING:
    from recsim_llm.worlds import build_world, load_world

register_all()

__all__ = ["__version__", "build_world", "load_world"]

__getattr__ = lazy_exports(__name__, {"worlds": ("build_world", "load_world")})
