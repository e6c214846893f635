"""Reward terms that can never be anything but 0 in an environment, and why.

A reward made of such terms is 0 at every step whatever is shown: nothing can be learnt from it and no comparison made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import gymnasium as gym

from recsim_llm.errors import ConfigError
from recsim_llm.simulator import Rules
from recsim_llm.simulator.task_variant import TaskVariant
from recsim_llm.worlds.world import World

OUT_OF_REACH = 40.0
"""Threshold of satisfaction that nobody passes [logit]: sigmoid(20 - 40) is 2e-9, below the steps of a uniform draw."""

NOT_REPORTED = ("like", "share", "cart", "purchase", "rating", "satisfaction")
"""Terms that a recommender does not see where only randomised clicks leave the device."""


def impossible_terms(world: World, rules: Rules, variant: TaskVariant) -> dict[str, str]:
    """Reward terms that are 0 at every step of this world under these rules, with the reason for each.

    Args:
        world: Items and users.
        rules: How users behave.
        variant: What is reported of it.
    """
    found = {
        name: f"rule {name}={threshold:g} is a threshold that nobody's satisfaction reaches"
        for name, threshold in (("like", rules.like), ("share", rules.share), ("cart", rules.cart))
        if threshold >= OUT_OF_REACH
    }
    if "cart" in found:
        found["purchase"] = f"only what is in the cart is bought, and {found['cart']}"
    elif rules.purchase >= OUT_OF_REACH:
        found["purchase"] = f"rule purchase={rules.purchase:g} is a threshold that nobody's satisfaction reaches"
    if rules.rating_rate == 0:
        found["rating"] = "rule rating_rate=0: nobody rates anything"
    catalog = world.catalog
    items = f"none of the {len(catalog)} items of world {world.name!r}"
    paid_for_click = bool(((catalog.bid > 0) & (catalog.bid_event == 0)).any())
    if rules.bids > 0:
        if not (catalog.bid > 0).any():
            found["revenue"] = (
                f"revenue here is what providers bid, and {items} has a bid (files of items have no column for it)"
            )
        elif "purchase" in found and not paid_for_click:
            found["revenue"] = f"all bids are paid for purchases, and {found['purchase']}"
    elif not (catalog.price > 0).any():
        found["revenue"] = (
            f"revenue here is the price of what is bought, and {items} has a price (the file of items needs a column "
            "price)"
        )
    elif "purchase" in found:
        found["revenue"] = found["purchase"]
    if variant.epsilon > 0:
        private = f"epsilon={variant.epsilon:g} lets only the click of a slot be reported"
        found = dict.fromkeys(NOT_REPORTED, private) | found
        if not (rules.bids > 0 and paid_for_click):
            found.setdefault("revenue", private)
    return found


def check_terms(
    terms: Iterable[str],
    world: World,
    rules: Rules,
    variant: TaskVariant,
    *,
    scenario: str,
    argument: str = "reward",
    chosen: bool = True,
) -> None:
    """Refuses terms of which none can occur, and warns of some that cannot.

    That privacy hides a part of a scenario's own reward is what its ids with "private" are for, and no warning.

    Args:
        terms: Names of the terms that count.
        world: Items and users.
        rules: How users behave.
        variant: What is reported of it.
        scenario: Name of the scenario, for the message.
        argument: The keyword argument that names the terms.
        chosen: Whether the caller named the terms; else they are the scenario's own.

    Raises:
        ConfigError: If there are terms and all of them are 0 at every step.
    """
    wanted = list(dict.fromkeys(terms))
    cannot = impossible_terms(world, rules, variant)
    if argument == "objectives" and variant.epsilon > 0:
        cannot.pop("satisfaction", None)  # the objective is latent, whatever is reported
    lost = {name: cannot[name] for name in wanted if name in cannot}
    if len(lost) < len(wanted) and not chosen:
        lost = {name: why for name, why in lost.items() if name in impossible_terms(world, rules, TaskVariant())}
    if not lost:
        return
    because = "; ".join(dict.fromkeys(lost.values()))
    names = ", ".join(lost)
    if len(lost) < len(wanted):
        gym.logger.warn(f"{argument} term {names} is 0 at every step of {scenario}: {because}")
        return
    use = f"{argument}=" + ('{"click": 1}' if argument == "reward" else '["click", "dwell"]')
    if variant.epsilon == 0:
        use += ", or another scenario such as recsim_llm/Music-v0 or recsim_llm/News-v0"
    which = f"its only term {names} cannot" if len(lost) == 1 else f"none of its terms {names} can"
    raise ConfigError(f"the reward of {scenario} would be 0 at every step, {which} occur: {because}. Use {use}")


def counted(weights: Mapping[str, float]) -> list[str]:
    """Names of the terms whose weight is not 0."""
    return [name for name, weight in weights.items() if weight != 0]
