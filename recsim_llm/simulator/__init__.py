"""The rules of the simulation, written for one user, compiled over all."""

from recsim_llm.simulator.params import CHOICES, REWARD_TERMS, SIGNALS, Rules
from recsim_llm.simulator.registry import register_choice, register_dynamics

__all__ = ["CHOICES", "REWARD_TERMS", "SIGNALS", "Rules", "register_choice", "register_dynamics"]
