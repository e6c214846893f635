"""Gain of looking ahead over the myopic oracle: tells bandit problems from long-term ones.

Written to stored/myopia.json, from where the pages of the environments have it, by

    python -m recsim_llm.benchmarks.studies.myopia

The policy that looks ahead shows the slate of the highest expected reward plus w times satisfaction, which is what
decides how soon users leave, when they come back and whether they do. The weight w is chosen on training users; both
policies then meet the same held-out users with the same luck. It is one family of policies: the gain is a lower bound
of what can be gained.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from recsim_llm import agents
from recsim_llm.envs import scenarios
from recsim_llm.files import write_file

STORED = Path(__file__).parents[1] / "stored" / "myopia.json"
WEIGHTS = (0.0, 0.1, 0.3, 1.0, 3.0)
"""Of satisfaction [rewards of an average click per logit]."""
TRAIN, TEST = 96, 256
RESAMPLES = 2000
MONTH = ("recsim_llm/Video-retention-v0",)


def measure(env_id: str, *, train: int = TRAIN, test: int = TEST, seed: int = 0) -> dict[str, Any]:
    """The gain of looking ahead in one environment.

    Args:
        env_id: A scenario.
        train: Training users on whom the weight is chosen.
        test: Held-out users.
        seed: Seed of the first user; held-out users begin at another one.

    Returns:
        "gain": mean gain in return per episode; "ci95": its bootstrap interval over users; "policy": what looked ahead;
        "myopic": mean return of the myopic oracle.
    """
    tuned = [float(play(env_id, weight, train, "train", seed).mean()) for weight in WEIGHTS]
    best = WEIGHTS[int(np.argmax(tuned))]
    myopic = play(env_id, 0.0, test, "test", seed + 100_000)
    gains = play(env_id, best, test, "test", seed + 100_000) - myopic
    rng = np.random.Generator(np.random.PCG64(seed))
    means = gains[rng.integers(0, test, (RESAMPLES, test))].mean(1)
    return {
        "gain": round(float(gains.mean()), 3),
        "ci95": [round(float(edge), 3) for edge in np.percentile(means, (2.5, 97.5))],
        "policy": f"the oracle that also counts satisfaction with weight {best:g}" if best else "none was better",
        "myopic": round(float(myopic.mean()), 3),
    }


def play(env_id: str, weight: float, lanes: int, users: str, seed: int) -> NDArray[np.float64]:
    """Returns [B] of the oracle with a weight on satisfaction, one episode for each lane."""
    envs = gym.make_vec(env_id, num_envs=lanes, users=users, truth=False, autoreset_mode="Disabled")
    core: Any = envs.unwrapped.core  # type: ignore[attr-defined]
    agent = agents.make("oracle", envs, seed=0)
    observation, _ = envs.reset(seed=seed)
    running, returns, state = np.ones(lanes, bool), np.zeros(lanes), None
    fresh, unit = np.ones(lanes, bool), None
    while running.any():
        appeal, value = core.truth()
        if unit is None:  # what a click is worth on average: brings the weight into the reward's unit
            unit = float(np.abs(value[np.isfinite(appeal)]).mean())
        if weight:
            value = value + np.float32(weight * unit) * core.simulator.truth({"satisfaction": 1.0})[1]
        agent.observe({"truth_appeal": appeal, "truth_value": value})
        action, state = agent.predict(observation, state, fresh, deterministic=True, action_masks=np.isfinite(appeal))
        observation, reward, terminated, truncated, _ = envs.step(action)
        returns += np.where(running, reward, 0.0)
        running, fresh = running & ~(terminated | truncated), np.zeros(lanes, bool)
    envs.close()
    return returns


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures every scenario and stores the result."""
    parser = argparse.ArgumentParser(
        prog="python -m recsim_llm.benchmarks.studies.myopia", description="The gain of foresight"
    )
    parser.add_argument("ids", nargs="*", default=[*scenarios(), *MONTH], help="environments (default: all scenarios)")
    parser.add_argument("--out", type=Path, default=STORED)
    options = parser.parse_args(arguments)
    found = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    for env_id in options.ids:
        found[env_id] = measure(env_id)
        write_file(options.out, json.dumps(found, indent=1, sort_keys=True).encode() + b"\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
