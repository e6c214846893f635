"""Judges at small size: a causal language model rates pairs of a built-in world, and is measured."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from recsim_llm.judges import HashingJudge, load_judge
from recsim_llm.judges.causal import CausalJudge
from recsim_llm.judges.pairs import pairs_of, sample_pairs
from recsim_llm.judges.reliability import agreement_of, canaries
from recsim_llm.worlds.world import load_world

Say = Callable[[str], None]
WORLD, PAIRS, PER_USER, SEED, PLAIN, CANARIES = "news", 20, 10, 1, 3, 3


def small(say: Say) -> dict[str, Any]:
    """Loads the small model, rates twenty pairs, and measures what its ratings are worth and what they cost.

    Args:
        say: Is told what is being done.

    Returns:
        ``agreement`` with the world's utilities (of so few pairs: a demonstration, not a measurement), the same of
        the judge without a model, pairs a second of processor time with and without shared beginnings, and the
        ``canaries``.
    """
    started = time.perf_counter()
    judge = load_judge("smollm2")
    assert isinstance(judge, CausalJudge)
    found: dict[str, Any] = {"judge": judge.name, "digest": judge.digest, "load_seconds": time.perf_counter() - started}
    say(f"SmolLM2-135M loaded in {found['load_seconds']:.1f} s")
    world = load_world(WORLD)
    users, items = sample_pairs(world, PAIRS, seed=SEED, per_user=PER_USER)
    pairs = pairs_of(world, users, items)
    utility = np.array([world.utility(users[[n]], items[[n]])[0, 0] for n in range(len(users))])
    judge.rate(pairs[:1])  # the instructions are computed once and for all
    started = time.process_time()
    verdicts = judge.rate(pairs)
    shared = len(pairs) / (time.process_time() - started)
    started = time.process_time()
    whole = dataclasses.replace(judge, cached=False).rate(pairs[:PLAIN])
    plain = PLAIN / (time.process_time() - started)
    pairwise = zip(verdicts[:PLAIN], whole, strict=True)
    found["speed"] = {
        "pairs_per_cpu_second": shared,
        "pairs_per_cpu_second_plain": plain,
        "ratio": shared / plain,
        "largest_difference": max(abs(one.rating - other.rating) for one, other in pairwise),
    }
    say(f"{shared:.2f} pairs a second of one core, {shared / plain:.1f} times as fast as prompts computed whole")
    found["agreement"] = agreement_of(verdicts, pairs, utility)
    found["hashing"] = agreement_of(HashingJudge().rate(pairs), pairs, utility)
    say(
        f"order of the world's utilities: AUC {found['agreement']['auc']:.2f} "
        f"(shared words: {found['hashing']['auc']:.2f}; chance: 0.50)"
    )
    found["canaries"] = canaries(judge, CANARIES)
    injection = found["canaries"]["injection"]
    say(
        f"canaries: known order {found['canaries']['known']:.0%}, same answer with the options backwards "
        f"{found['canaries']['position']['same']:.0%}, hidden orders obeyed {injection['success']:.0%} "
        f"of {injection['attacks']}"
    )
    return found
