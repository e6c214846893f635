"""The training loop of all agents: recommend to every lane, update, log, call back."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from recsim_llm.agents.core.callbacks import hooked
from recsim_llm.agents.core.env_runner import Transition
from recsim_llm.agents.core.progress import Progress
from recsim_llm.agents.core.run_logger import RunLogs
from recsim_llm.errors import ConfigError

if TYPE_CHECKING:
    from recsim_llm.agents.core.base import Agent

logger = logging.getLogger(__name__)


def train(
    agent: Agent,
    total_timesteps: int,
    callback: Any = None,
    log_interval: int | None = None,
    tb_log_name: str = "run",
    reset_num_timesteps: bool = False,
    progress_bar: bool = False,
) -> None:
    """Runs :meth:`Agent.learn`; arguments as there."""
    self = agent  # callbacks of Stable-Baselines3 find the algorithm under this name
    begin(agent, total_timesteps, reset_num_timesteps)
    target, ended = agent.num_timesteps + total_timesteps, 0
    begun_at, started = agent.num_timesteps, time.perf_counter()
    hook = hooked(callback, agent)
    with logging_to(agent, tb_log_name, log_interval, reset_num_timesteps) as logs:
        hook.begin(locals(), globals())
        with Progress(total_timesteps, tb_log_name, progress_bar) as advance:
            while agent.num_timesteps < target:
                transition = agent.interact()
                agent.update(transition)
                steps = int(transition.valid.sum())
                agent.num_timesteps += steps
                advance(steps)
                ended += count(agent, transition)
                if logs is not None:
                    logs.after_step(agent, transition)
                elif log_interval is not None and ended >= log_interval:
                    ended = 0
                    agent.logger["time/fps"] = int((agent.num_timesteps - begun_at) / (time.perf_counter() - started))
                    logger.info("%s %s: %s", tb_log_name, agent.name, agent.logger)
                if not hook.step(locals(), globals()):
                    break
    agent.finish()
    hook.end()
    self.shown = self.where = None


def begin(agent: Agent, total_timesteps: int, reset_num_timesteps: bool) -> None:
    """Checks the budget and begins episodes where none were begun yet."""
    if total_timesteps < 0:
        raise ConfigError(f"total_timesteps must not be negative, got {total_timesteps}")
    if reset_num_timesteps:
        agent.num_timesteps = 0
    if not agent.runner.started:
        agent.runner.reset(seed=agent.seed)


@contextmanager
def logging_to(agent: Agent, run: str, interval: int | None, anew: bool) -> Iterator[RunLogs | None]:
    """The logs of an agent while it learns; whatever happens, what is there is written."""
    if agent.logs is None:
        yield None
        return
    agent.logs.begin(agent, run, interval, anew)
    try:
        yield agent.logs
    finally:
        agent.logs.end(agent)


def count(agent: Agent, transition: Transition) -> int:
    """Keeps returns and lengths of the agent's last episodes; the number of those that just ended."""
    running, returns = agent.episode_sums, agent.episodes
    running[0] += np.where(transition.valid, transition.reward, 0.0)
    running[1] += transition.valid
    ended = np.flatnonzero(transition.terminated | transition.truncated)
    for lane in ended.tolist():
        returns.append((float(running[0, lane]), int(running[1, lane])))
    running[:, ended] = 0.0
    if len(ended):
        mean_return, mean_length = np.mean(returns, axis=0)
        agent.logger["rollout/ep_rew_mean"] = float(mean_return)
        agent.logger["rollout/ep_len_mean"] = float(mean_length)
    agent.logger["time/total_timesteps"] = agent.num_timesteps
    return len(ended)
