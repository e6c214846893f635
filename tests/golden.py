"""Digests of fixed trajectories of every registered id. Written anew, after a deliberate change, by

    python tests/golden.py --write

A changed digest means that users behave otherwise than before: the id needs a new version, and CHANGELOG.md a line.
Without ``--write`` the digests are computed and compared with tests/golden.json; the exit code is 1 where they differ.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from recsim_llm.envs import ids
from recsim_llm.testing import actions, trajectory_digest

FILE = Path(__file__).with_name("golden.json")
SEEDS = (0, 1, 2)
STEPS = 1000
SHORT = 100
LANES = 600
"""Enough lanes for two threads."""


def scalar_digests(steps: int) -> dict[str, list[str]]:
    """For each id the digests of one scalar environment and each seed."""
    return {env_id: [trajectory_digest(gym.make(env_id), seed, steps) for seed in SEEDS] for env_id in ids()}


def vector_digest(env_id: str, threads: int, steps: int = 30) -> str:
    """Digest of all lanes of a vector environment: observations, rewards, flags, infos."""
    envs = gym.make_vec(env_id, num_envs=LANES, threads=threads)
    digest = hashlib.sha256(envs.reset(seed=0)[0].tobytes())
    for action, _ in zip(actions(envs.action_space, 0), range(steps), strict=False):
        *arrays, infos = envs.step(action)
        for array in (*arrays, *(infos[name] for name in sorted(infos))):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def computed() -> dict[str, Any]:
    """Everything that the golden file holds."""
    return {
        "seeds": list(SEEDS),
        "steps": STEPS,
        "short": SHORT,
        "trajectories": scalar_digests(STEPS),
        "short_trajectories": scalar_digests(SHORT),
        "lanes": {env_id: vector_digest(env_id, threads=1) for env_id in ids()},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Digests of fixed trajectories")
    parser.add_argument("--write", action="store_true", help="write tests/golden.json anew")
    parser.add_argument("--only", choices=("trajectories", "short_trajectories"), help="print one part as JSON")
    chosen = parser.parse_args()
    if chosen.only:
        print(json.dumps(scalar_digests(STEPS if chosen.only == "trajectories" else SHORT)))
        return 0
    found = computed()
    if chosen.write:
        FILE.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
        return 0
    same = found == json.loads(FILE.read_text())
    print("equal" if same else "DIFFERENT", FILE)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
