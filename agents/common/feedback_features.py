"""Features of feedback: of a user by what she did lately, and of an item by what users did with it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from recsim_llm.agents.common.cooldown import RecentItems
from recsim_llm.agents.common.item_stats import credited
from recsim_llm.agents.core.env_runner import EnvironmentSpec, Flags, Floats, Slates, Transition

Values = NDArray[np.float64]

SUMS = 9  # over the slots, of click .. rating (7) and of skip, and the number of ratings
RATING, SKIP = 6, 7
KEPT = np.float32(0.85)
"""Share of the feedback of a step that is left after one more."""

ITEM_SIGNALS = ("dwell", "like", "share", "cart", "purchase", "rating")
COLUMNS = len(ITEM_SIGNALS) + 1  # and the reward
RATING_COLUMN = ITEM_SIGNALS.index("rating")


@dataclass(frozen=True)
class UserState:
    """State between two calls of ``predict``: the memory, and the decayed feedback of each lane's episode.

    Attributes:
        memory: Looks and clicks.
        feedback: [B, SUMS] decayed mean of the feedback of the steps so far.
        features: [B, N] features of the states that the last decision was made in.
    """

    memory: RecentItems
    feedback: Floats
    features: Floats

    def noting(self, slates: Slates) -> Self:
        """With a new slate [B, K] shown."""
        return replace(self, memory=self.memory.noting(slates))


class UserStateFeatures:
    """Features of a user's state, without encodings: [1, context, feedback of the last step, decayed feedback].

    Feedback is the sum of each signal over the slots, in the scale of observations, and the number of ratings: a
    rating of zero is none. It is the public sign of a user's mood, on which the value of a state depends.

    Args:
        env_spec: The form of observations.
    """

    def __init__(self, env_spec: EnvironmentSpec) -> None:
        self.env_spec = env_spec
        context = env_spec.layout["context"]
        self.count = 1 + context.stop - context.start + 2 * SUMS

    def feedback(self, obs: Floats) -> Floats:
        """Feedback [B, SUMS] of the last step."""
        slots = self.env_spec.feedback(obs)
        rated = (slots[:, :, RATING] > 0.0).sum(1, dtype=np.float32)
        sums = slots.sum(1)
        sums[:, SKIP] /= np.float32(self.env_spec.slate_size)
        feedback: Floats = np.concatenate([sums, rated[:, None]], 1)
        return feedback

    def decayed(self, obs: Floats, before: Floats | None, episode_start: Flags) -> Floats:
        """Decayed feedback [B, SUMS] with that of the last step taken in; nothing in lanes that begin an episode."""
        feedback = self.feedback(obs)
        if before is None or len(before) != len(obs):
            before = np.zeros_like(feedback)
        mean: Floats = np.where(episode_start[:, None], np.float32(0.0), KEPT * before + (1 - KEPT) * feedback)
        return mean

    def of(self, obs: Floats, decayed: Floats) -> Floats:
        """Features [B, N] of observations [B, P] and decayed feedback."""
        one = np.ones((len(obs), 1), np.float32)
        features: Floats = np.concatenate([one, self.env_spec.part("context", obs), self.feedback(obs), decayed], 1)
        return features


class ItemFeedback:
    """Mean feedback to each item from users who clicked it, drawn towards the mean of all items.

    Args:
        items: I.
        strength: Clicks an item must have had for half of its own mean to be believed.

    Attributes:
        table: [I, COLUMNS] means of dwell, like .. rating and reward, less those of all items, in units of the
            standard deviation of a single signal; 0 for an item that nobody clicked.
    """

    def __init__(self, items: int, strength: float) -> None:
        self.strength = strength
        self.times: Values = np.zeros((items, COLUMNS))
        self.sums: Values = np.zeros((items, COLUMNS))
        self.squares: Values = np.zeros(COLUMNS)
        self.table: Floats = np.zeros((items, COLUMNS), np.float32)

    def add(self, transition: Transition, items: Slates) -> None:
        """Counts clicked items [B, K], -1 for none."""
        where = items >= 0
        clicked = items[where]
        if not len(clicked):
            return
        info = transition.info
        signals = [np.asarray(info[name], np.float64)[where] for name in ITEM_SIGNALS]
        values = np.stack([*signals, credited(transition)[where]], 1)
        counted = np.ones_like(values)
        counted[:, RATING_COLUMN] = values[:, RATING_COLUMN] > 0.0
        np.add.at(self.times, clicked, counted)
        np.add.at(self.sums, clicked, values)
        self.squares += np.square(values).sum(0)
        self.refresh()

    def refresh(self) -> None:
        """Computes the table from the sums."""
        number = np.maximum(self.times.sum(0), 1.0)
        mean = self.sums.sum(0) / number
        spread = np.sqrt(np.maximum(self.squares / number - np.square(mean), 0.0))
        apart = (self.sums - mean * self.times) / (self.times + self.strength)
        self.table[...] = np.divide(apart, spread, out=np.zeros_like(apart), where=spread > 0.0)

    def arrays(self) -> dict[str, NDArray[np.floating]]:
        """Sums and the table."""
        return {
            "signs_times": self.times, "signs_sums": self.sums, "signs_squares": self.squares, "signs_table": self.table
        }  # fmt: skip
