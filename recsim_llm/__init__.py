"""recsim_llm: Gymnasium environments for recommender systems whose users' tastes come from language-model encodings.

Importing the package registers every environment id and loads nothing heavy.
"""

from recsim_llm._version import __version__
from recsim_llm.envs.registration import register_all

register_all()

__all__ = ["__version__"]
