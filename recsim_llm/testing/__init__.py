"""Contract checks, shipped so that environments and agents from elsewhere can be held to the same rules."""

from recsim_llm.testing.agents import check_agent
from recsim_llm.testing.environments import Check, actions, check_env, difference, trajectory_digest

__all__ = ["Check", "actions", "check_agent", "check_env", "difference", "trajectory_digest"]
