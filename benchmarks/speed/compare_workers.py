"""The simulators that ``compare.py`` compares, each run by its own interpreter; imports nothing beside it.

    python compare_workers.py ours|recsim|ng

builds the cases of one simulator and prints their names as a line of JSON. Then every line "case seconds" on the
standard input is answered by a line of JSON: how many user-steps were simulated, and the processor time they took. The
setting is the same for all: 1,000 documents that do not change, 20 topics, slates of 5. Every side draws its slates at
random as it goes, and this counts.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

DOCUMENTS, TOPICS, SLATE = 1000, 20, 5
LANES = (1024, 8192)
MULTI_USERS = 100
"""Users of RecSim's multi-user environment; more make it no faster."""
STEPS = 60
"""Steps at a time, and in one call of RecSim NG's graph; RecSim's users are nearly all there for so long."""

Case = Callable[[], int]
"""Simulates for a moment; returns the number of user-steps."""


def ours() -> dict[str, Case]:
    """This project: ``step`` of ``gym.make_vec`` and ``gym.make`` with observations, infos and resets."""
    gym = importlib.import_module("gymnasium")
    importlib.import_module("recsim_llm")
    rng = np.random.Generator(np.random.PCG64(0))
    options = {"num_candidates": DOCUMENTS, "slate_size": SLATE, "resample_documents": False}
    cases: dict[str, Case] = {}
    for lanes in LANES:
        for form in ("flat", "dict"):
            envs = gym.make_vec(
                "recsim_llm/InterestEvolution-v0", num_envs=lanes, threads=1, copy=False, observation=form, **options
            )
            envs.reset(seed=0)
            cases[f"{lanes} users, {form}"] = _vector(envs, rng, lanes)
    env = gym.make("recsim_llm/InterestEvolution-v0", **options)
    env.reset(seed=0)
    cases["one user"] = _scalar(env, rng, 4)
    return cases


def _vector(envs: Any, rng: np.random.Generator, lanes: int) -> Case:
    def run() -> int:
        for _ in range(STEPS):
            envs.step(rng.integers(0, DOCUMENTS, (lanes, SLATE)))
        return lanes * STEPS

    return run


def _scalar(env: Any, rng: np.random.Generator, done: int) -> Case:
    """A loop over one user; her session is over where one of the result's items 2..done-1 says so."""

    def run() -> int:
        for slate in rng.integers(0, DOCUMENTS, (STEPS, SLATE)):
            if any(env.step(slate)[2:done]):
                env.reset()
        return STEPS

    return run


def recsim() -> dict[str, Case]:
    """RecSim 0.2.4: interest evolution for one user, and its environment of many users."""
    importlib.import_module("classics_reference").install_stand_ins()
    module: Any = importlib.import_module("recsim.environments.interest_evolution")
    simulator: Any = importlib.import_module("recsim.simulator.environment")
    gym_env: Any = importlib.import_module("recsim.simulator.recsim_gym")
    choice: Any = importlib.import_module("recsim.choice_model")
    rng = np.random.Generator(np.random.PCG64(0))
    sizes = {"num_candidates": DOCUMENTS, "slate_size": SLATE, "resample_documents": False, "seed": 0}
    one = module.create_environment(sizes)
    one.reset()
    users = [
        module.IEvUserModel(SLATE, choice_model_ctor=choice.MultinomialProportionalChoiceModel, seed=number)
        for number in range(MULTI_USERS)
    ]
    sampler = module.UtilityModelVideoSampler(doc_ctor=module.IEvVideo, seed=0)
    many = gym_env.RecSimGymEnv(
        simulator.MultiUserEnvironment(users, sampler, DOCUMENTS, SLATE, resample_documents=False),
        lambda responses: [module.clicked_watchtime_reward(slots) for slots in responses],
    )

    def run() -> int:
        many.reset()
        for _ in range(STEPS):
            many.step(rng.integers(0, DOCUMENTS, (MULTI_USERS, SLATE)))
        return STEPS * MULTI_USERS

    return {"one user": _scalar(one, rng, 3), f"{MULTI_USERS} users": run}


def ng() -> dict[str, Case]:
    """RecSim NG 0.1.2: interest evolution with a frozen corpus and random slates, one thread.

    The story is the leanest that RecSim NG has (state of users, slate, response): no metrics, and in place of the
    neural recommender one that draws slates evenly. "graph" runs many steps in one call of the compiled graph and
    returns the last; "stepwise" calls a compiled graph of one step each time and reads choice and time consumed.
    """
    tf: Any = importlib.import_module("tensorflow")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    _plain_shapes()
    cases: dict[str, Case] = {}
    for lanes in LANES:
        runtime = _ng_runtime(tf, lanes)
        state = runtime._pack(runtime._network.initial_step())
        cases[f"graph, {lanes} users"] = _ng_graph(tf, runtime, state, lanes)
        cases[f"stepwise, {lanes} users"] = _ng_stepwise(tf, runtime, state, lanes)
    return cases


def _plain_shapes() -> None:
    """RecSim NG gives shapes of spaces as tensors, which later versions of gym refuse."""
    spaces: Any = importlib.import_module("gym.spaces")
    box = spaces.Box

    def plain_box(low: Any, high: Any, shape: Any = None, **more: Any) -> Any:
        return box(low, high, None if shape is None else tuple(int(size) for size in shape), **more)

    spaces.Box = plain_box


def _ng_runtime(tf: Any, lanes: int) -> Any:
    application = "recsim_ng.applications.recsys_partially_observable_rl"
    corpora: Any = importlib.import_module(f"{application}.corpus")
    people: Any = importlib.import_module(f"{application}.user")
    story: Any = importlib.import_module("recsim_ng.stories.recommendation_simulation")
    network: Any = importlib.import_module("recsim_ng.core.network")
    value: Any = importlib.import_module("recsim_ng.core.value")
    runtimes: Any = importlib.import_module("recsim_ng.lib.tensorflow.runtime")
    config = {"num_users": lanes, "num_topics": TOPICS, "num_docs": DOCUMENTS, "slate_size": SLATE, "num_clusters": 0}
    corpus = corpora.CorpusWithTopicAndQuality(config).initial_state()
    fields = {name: tf.constant(np.asarray(tf.convert_to_tensor(tensor))) for name, tensor in corpus.as_dict.items()}
    spec = corpora.CorpusWithTopicAndQuality(config).specs().get("state")

    class RandomRecommender:
        """Slates drawn evenly from the corpus."""

        def __init__(self, _: Any) -> None:
            pass

        def slate_docs(self) -> Any:
            chosen = tf.random.uniform((lanes, SLATE), 0, DOCUMENTS, tf.int32)
            return value.Value(**{name: tf.gather(tensor, chosen) for name, tensor in fields.items()})

        def specs(self) -> Any:
            return spec.prefixed_with("slate")

    variables = story.simplified_recs_story(config, people.InterestEvolutionUser, RandomRecommender)
    return runtimes.TFRuntime(network=network.Network(variables=variables))


def _ng_graph(tf: Any, runtime: Any, start: Any, lanes: int) -> Case:
    @tf.function  # type: ignore[untyped-decorator,unused-ignore]
    def many(packed: Any) -> Any:
        return tf.while_loop(
            lambda _: tf.constant(True), lambda before: [runtime._packed_step(before)], [packed],
            maximum_iterations=STEPS,
        )[0]  # fmt: skip

    kept = [start]

    def run() -> int:
        kept[0] = many(kept[0])
        return STEPS * lanes

    return run


def _ng_stepwise(tf: Any, runtime: Any, start: Any, lanes: int) -> Case:
    step = tf.function(runtime._packed_step)
    names = [variable.name for variable in runtime._network.variables]
    response = names.index("user response")
    kept = [start]

    def run() -> int:
        for _ in range(STEPS):
            kept[0] = step(kept[0])
            for name in ("choice", "consumed_time"):
                kept[0][response][name].numpy()
        return STEPS * lanes

    return run


def main() -> None:
    """Answers the commands of the driver until its end of the pipe is closed."""
    cases = {"ours": ours, "recsim": recsim, "ng": ng}[sys.argv[1]]()
    for case in cases.values():
        case()  # compiles
    _tell(list(cases))
    for line in sys.stdin:
        name, seconds = line.rstrip().rsplit(" ", 1)
        steps, started = 0, time.process_time()
        while (passed := time.process_time() - started) < float(seconds):
            steps += cases[name]()
        _tell({"user_steps": steps, "cpu_seconds": passed})


def _tell(answer: Any) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
