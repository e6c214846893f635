"""Report of the study of live judges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CLOCKS = ("processor", "clock")
PAIRS = {"fitted": "distilled from", "held_out": "never seen by the head"}
MEASURES = ("pearson", "spearman", "spearman_item_appeal")


def report(found: Mapping[str, Any]) -> str:
    """Results as Markdown."""
    plan, speed, told = found["settings"], found["speed"], found["utilities"]
    lines = [
        "# A judge at every step, and the world distilled from it",
        f"Judge `{found['judge']['name']}`, {plan['users']} users and {plan['items']} items of the world "
        f"`{plan['world']}`, slates of {plan['slots']}; the head was distilled from {told['fitted']['pairs']:,} pairs. "
        "The same slates, users and random numbers in all worlds. "
        "Made by `python -m recsim_llm.benchmarks.studies.live`.",
        "## Clicks",
        f"Share of user-steps in which the same slot (or none) was clicked as with `judge=\"live\"`; "
        f"{plan['lanes']} users side by side, {plan['steps']} steps. From the same state, each step begins where the "
        "live judge's users are; on its own, users go their own way once a click differs. Shared luck alone makes "
        "clicks agree: the floor is the world whose users have each other's tastes. Intervals are over the "
        f"{plan['users']} users.",
        *_table(
            ("world", "pairs", "same click", "95 %", "Cohen's kappa", "clicks a step, live", "here", "user-steps"),
            [
                (
                    name, PAIRS[part], f"{row['same']:.3f}",
                    f"[{row['ci95'][0]:.3f}, {row['ci95'][1]:.3f}]", f"{row['kappa']:.3f}",
                    f"{row['clicks'][0]:.3f}", f"{row['clicks'][1]:.3f}", f"{row['user_steps']:,}",
                )
                for name, parts in sorted(found["clicks"].items())
                for part, row in parts.items()
            ],
        ),
        "## Utilities",
        f"Correlation of the judge's ratings with utilities. Its ratings have a standard deviation of "
        f"{told['spread_of_ratings']:.3f}; {told['missing']} are missing.",
        *_table(
            ("pairs", "number", "Pearson", "Spearman", "Spearman of item appeal alone"),
            [
                (name, f"{row['pairs']:,}", *(f"{row[key]:.3f}" for key in MEASURES))
                for name, row in ((text, told[part]) for part, text in PAIRS.items())
            ],
        ),
        "## Speed",
        "User-steps per second of processor time, one thread, and of the clock, which other programs slow. "
        "The live judge was timed for one step each with nothing in its memory: every pair was new.",
        *_table(
            ("what", "processor", "clock"),
            [
                *((f"live, {n} lanes", *(f"{rate[c]:.3g}" for c in CLOCKS)) for n, rate in speed["live_cold"].items()),
                (f"distilled, {plan['fast']:,} lanes", *(f"{speed['distilled'][c]:,.0f}" for c in CLOCKS)),
                ("ratio to the best of live", *(f"{speed['ratio'][c]:,.0f}" for c in CLOCKS)),
            ],
        ),
        *_cost(found["cost"]),
    ]  # fmt: skip
    return "\n\n".join(lines) + "\n"


def _cost(told: Mapping[str, Any]) -> list[str]:
    live, made = told["live"], told["distilled"]
    return [
        "## Cost",
        f"{told['users']:,} users with {told['steps_each']} steps each; {told['tokens_per_pair']['per_pair']:.0f} "
        f"tokens for each pair ({told['tokens_per_pair']['counted']}), at {told['price_of_million_tokens']:g} a "
        "million tokens. With more steps than pairs, a live judge that remembers is asked less: this is the most.",
        *_table(
            ("what", "processor seconds", "tokens", "price"),
            [
                ("live", f"{live['seconds']:,.0f}", f"{live['tokens']:,.0f}", f"{live['price']:.2f}"),
                (
                    "distilled",
                    f"{made['seconds']:.3g}, once {made['seconds_of_distillation']:,.0f}",
                    f"once {made['tokens']:,.0f}",
                    f"once {made['price']:.2f}",
                ),
            ],
        ),
    ]


def _table(headers: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    lines = [f"| {' | '.join(headers)} |", "|:--" * len(headers) + "|"]
    return ["\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])]
