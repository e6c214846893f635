"""Environments: one scenario per file, thin shells over the rules."""

from recsim_llm.envs.registration import ids, register_all, scenarios, variants

__all__ = ["ids", "register_all", "scenarios", "variants"]
