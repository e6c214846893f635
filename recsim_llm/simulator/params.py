"""The parameters of the rules. A scenario is a set of them."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, get_type_hints

import numpy as np
from numpy.typing import NDArray

from recsim_llm.errors import ConfigError, unknown
from recsim_llm.simulator.task_variant import SHARES_OF_VARIANT, VARIANT_NUMBERS, TaskVariant

SIGNALS = ("click", "dwell", "like", "share", "cart", "purchase", "rating", "skip")
"""Feedback signals, in the order of every array that has them."""

REWARD_TERMS = (*SIGNALS, "revenue", "satisfaction", "return", "churn")
"""What a reward may weigh: the signals (dwell in minutes), price paid, satisfaction, coming back, leaving for good."""

CHOICES = ("multinomial", "cascade", "position")
"""Built-in choice models."""


@dataclass(frozen=True)
class Rules:
    """How users behave. Utilities are in logits: a difference of 1 multiplies odds by 2.7.

    Attributes:
        choice: Choice model: "multinomial" (logit with a no-click option), "cascade" or "position" (independent
            clicks by examined position), or the name of a registered one.
        no_click: Utility of clicking nothing [logit].
        position_bias: Exponent of attention: slot k (from 0) gets (1 + k) ** -position_bias.
        cascade_continue: Probability of looking at the next slot after one that was not clicked.
        clickbait_pull: Attraction of one unit of clickbait [logit].
        clickbait_regret: Satisfaction lost by one unit of clickbait [logit].
        quality_gain: Satisfaction from one standard deviation of quality [logit].
        freshness: Attraction of an item on release [logit].
        freshness_life: Time in which freshness falls by the factor e [day].
        shelf_life: Age at which an item is withdrawn [day]; 0 is never.
        satiation: Attraction lost when the topic's satiation is 1 [logit].
        satiation_click: Satiation added to the topic by one consumed item.
        satiation_look: Satiation added to the topic by one item looked at and left.
        satiation_life: Time in which satiation falls by the factor e [h].
        repeat: Attraction lost by an item consumed just before [logit].
        repeat_look: Share of that for an item looked at and left.
        repeat_life: Time in which the memory of a consumed item falls by the factor e [h]; 0 is never, for what nobody
            consumes twice.
        look_life: The same for an item that was only looked at; the memory of looks is in 255ths.
        repeat_bought: Attraction lost for good by an item that she has bought, beyond that [logit].
        price_weight: Factor on users' price sensitivity; 0 where nothing is paid.
        wallet: Factor on users' wallets: a purchase beyond what is left of the 30 days' money does not happen; 0 where
            money is no limit.
        owned: Attraction lost by items of a category just bought from [logit].
        owned_life: Time in which that falls by the factor e [day].
        bids: Share of providers' bids that is revenue; 0 where revenue is the price of purchases. Bids are paid for a
            click or a purchase, within the provider's daily budget; without money left its items are off the shelf.
        blindness: Attraction lost by every item when blindness is 1 [logit].
        blindness_look: Share by which blindness moves to 1 with each item looked at and left.
        blindness_life: Time in which blindness falls by the factor e [h].
        audience_life: Time in which a provider's audience falls by the factor e [day]; 0 where providers do not care.
        audience_start: Audience of every provider at the beginning.
        audience_needed: Audience below which a provider publishes nothing new, for good.
        audience_look: Audience gained by one item looked at.
        audience_click: Audience gained by one consumed item, beyond that.
        buzz: Attraction gained by all items of a provider whose buzz is 1 [logit].
        buzz_like: Buzz of the provider added by one like.
        buzz_share: The same for one share.
        buzz_life: Time in which buzz falls by the factor e [day].
        look_time: Time to look at one slot [s].
        dwell_time: Median time spent on an item of satisfaction 0 [s].
        dwell_spread: Standard deviation of its logarithm.
        dwell_satisfaction: Logarithmic gain of that time per unit of satisfaction.
        like: Threshold of satisfaction at which half of the users press like [logit].
        share: The same for sharing.
        cart: The same for adding to the cart; satisfaction less price.
        purchase: The same for buying what is in the cart.
        rating_rate: Probability that a consumed item is rated.
        rating_slope: Stars per unit of satisfaction, around 3.
        drift: Share by which taste moves to (or from) what was consumed, at full satisfaction.
        drift_target: Utility that a taste made of one average item gives to that item [logit].
        diffusion: Random change of taste between sessions, in standard deviations of taste per square root of a day.
        interest_rate: Weight of the newest item in the public mean of engaged encodings.
        mood_rate: Weight alpha of the newest satisfaction in mood: m <- m + alpha (y - m).
        mood_skip: Satisfaction y that a step without any click stands for [logit].
        mood_life: Time in which mood falls by the factor e between sessions [day].
        session_time: Median time budget of a session [s].
        session_spread: Standard deviation of its logarithm.
        leave: Logit of leaving after a step at mood 0 (l0).
        leave_mood: Fall of that per unit of mood (l1).
        churn: Logit of never coming back after a session at mood 0.
        churn_mood: Fall of that per unit of mood.
        gap: Mean time between sessions at mood 0 [h].
        gap_mood: Fall of its logarithm per unit of mood.
        start_day: Day of the catalogue's clock at which episodes begin [day].
    """

    choice: str = "multinomial"
    no_click: float = 0.0
    position_bias: float = 0.3
    cascade_continue: float = 0.85
    clickbait_pull: float = 0.5
    clickbait_regret: float = 1.0
    quality_gain: float = 0.5
    freshness: float = 0.0
    freshness_life: float = 1.0
    shelf_life: float = 0.0
    satiation: float = 1.0
    satiation_click: float = 0.25
    satiation_look: float = 0.02
    satiation_life: float = 2.0
    repeat: float = 2.0
    repeat_look: float = 0.15
    repeat_life: float = 24.0
    look_life: float = 24.0
    repeat_bought: float = 0.0
    price_weight: float = 0.0
    wallet: float = 0.0
    owned: float = 0.0
    owned_life: float = 21.0
    bids: float = 0.0
    blindness: float = 0.0
    blindness_look: float = 0.03
    blindness_life: float = 12.0
    audience_life: float = 0.0
    audience_start: float = 10.0
    audience_needed: float = 1.0
    audience_look: float = 1.0
    audience_click: float = 3.0
    buzz: float = 0.0
    buzz_like: float = 0.2
    buzz_share: float = 0.5
    buzz_life: float = 2.0
    look_time: float = 2.0
    dwell_time: float = 60.0
    dwell_spread: float = 0.6
    dwell_satisfaction: float = 0.4
    like: float = 2.5
    share: float = 4.0
    cart: float = 2.0
    purchase: float = 1.0
    rating_rate: float = 0.1
    rating_slope: float = 0.6
    drift: float = 0.01
    drift_target: float = 3.0
    diffusion: float = 0.02
    interest_rate: float = 0.2
    mood_rate: float = 0.1
    mood_skip: float = -0.5
    mood_life: float = 2.0
    session_time: float = 1200.0
    session_spread: float = 0.5
    leave: float = -4.0
    leave_mood: float = 1.0
    churn: float = -3.5
    churn_mood: float = 1.5
    gap: float = 20.0
    gap_mood: float = 0.5
    start_day: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "choice":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ConfigError(f"rule parameter {field.name} must be a finite number, got {value!r}")
        for name in _POSITIVE:
            if getattr(self, name) <= 0:
                raise ConfigError(f"rule parameter {name} must be above 0, got {getattr(self, name)}")
        for name in _NOT_NEGATIVE:
            if getattr(self, name) < 0:
                raise ConfigError(f"rule parameter {name} must not be below 0, got {getattr(self, name)}")
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"rule parameter {name} must lie in [0, 1], got {getattr(self, name)}")

    def replace(self, **changes: Any) -> Rules:
        """The same rules with some parameters changed.

        Raises:
            ConfigError: If a name is not a parameter; the message has the closest one.
        """
        for name in changes:
            if name not in _NAMES:
                raise unknown("rule parameter", name, _NAMES)
        return dataclasses.replace(self, **changes)

    @property
    def providers_matter(self) -> bool:
        """Whether anything is remembered of each provider."""
        return self.bids > 0 or self.audience_life > 0 or self.buzz != 0

    def packed(
        self, *, choice: int, mu: float, noise: float, units: dict[str, float], variant: TaskVariant | None = None
    ) -> NDArray[np.void]:
        """One record of every number, as the compiled rules read it."""
        record = np.zeros(1, PARAMETERS)
        for name in _NUMBERS:
            record[name] = getattr(self, name)
        record["choice"], record["mu"], record["noise"] = choice, mu, noise
        for name in RATES:
            life = getattr(self, name.replace("rate", "life"))
            record[name] = 1.0 / (life * 60.0) if life > 0 else 0.0
        for name, value in {**units, **(variant or TaskVariant()).packed()}.items():
            record[name] = value
        if variant is not None:
            record["satiation"] = self.satiation * variant.satiation
        return record


_NAMES = tuple(field.name for field in dataclasses.fields(Rules))
_NUMBERS = tuple(name for name, kind in get_type_hints(Rules).items() if kind is float)
_POSITIVE = (
    "freshness_life", "satiation_life", "look_time", "dwell_time", "mood_life", "session_time", "gap",
    "drift_target", "owned_life", "blindness_life", "buzz_life", "audience_needed",
)  # fmt: skip
_NOT_NEGATIVE = (
    "repeat_life", "look_life", "wallet", "bids", "audience_life", "audience_start", "audience_look", "audience_click",
)  # fmt: skip
_SHARES = ("cascade_continue", "repeat_look", "rating_rate", "drift", "interest_rate", "mood_rate", "blindness_look")

UNITS = ("utility_unit", "encoding_unit", "profile_unit", "drift_gain", "taste_spread")
"""Scales of the integer tables: value = unit * integer."""

RATES = ("repeat_rate", "look_rate")
"""How fast memories fade [1 / min]: by the life of the same name, 0 where that is for ever."""

PARAMETERS = np.dtype(
    [(name, np.float32) for name in (*_NUMBERS, "mu", "noise", *UNITS, *RATES)]
    + [(name, np.float32 if name in SHARES_OF_VARIANT else np.int32) for name in VARIANT_NUMBERS]
    + [("choice", np.int32)],
    align=True,
)


def reward_weights(weights: dict[str, float]) -> NDArray[np.float32]:
    """Weights as the array that the compiled step reads, in the order of REWARD_TERMS.

    Raises:
        ConfigError: If a key is not a reward term or a weight not a finite number.
    """
    array = np.zeros(len(REWARD_TERMS), np.float32)
    for name, weight in weights.items():
        if name not in REWARD_TERMS:
            raise unknown("reward term", name, REWARD_TERMS)
        if not math.isfinite(weight):
            raise ConfigError(f"weight of reward term {name} must be a finite number, got {weight}")
        array[REWARD_TERMS.index(name)] = weight
    return array
