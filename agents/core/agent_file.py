"""Agents as files: a zip of JSON and safetensors, stored without compression. Loading one runs no code.

* format_version: 2
* config.json: agent, settings, seed, steps, states of the random streams, digest of the catalogue
* weights.safetensors: every array; those under "lanes/" are the environment's and the lanes', so that learning goes on
  where it stopped
* env_spec.json: id and arguments of the environment it was trained in
* system_info.json: versions, for people who look for the cause of a difference
"""

from __future__ import annotations

import dataclasses
import io
import json
import platform
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsim_llm._version import __version__
from recsim_llm.errors import ConfigError, DataError, MissingExtraError, unknown
from recsim_llm.files import write_file
from recsim_llm.simulator.classics.interest_evolution import InterestEvolution
from recsim_llm.simulator.classics.interest_exploration import InterestExploration
from recsim_llm.simulator.classics.long_term_satisfaction import LongTermSatisfaction
from recsim_llm.simulator.task_variant import TaskVariant
from recsim_llm.worlds.world import built_in_worlds

FORMAT = 2
MEMBERS = ("format_version", "config.json", "weights.safetensors", "env_spec.json", "system_info.json")
MOST_BYTES = 4 * 2**30
MOST_JSON_BYTES = 16 * 2**20
EPOCH = (1980, 1, 1, 0, 0, 0)
OWN_IDS = "recsim_llm/"
ARGUMENTS = frozenset({
    "world", "slate_size", "users", "observation", "reward", "rules", "choice", "dynamics", "truth", "action_mask",
    "strict", "horizon", "num_candidates", "history", "group", "threads", "objectives", "max_episode_steps",
    "autoreset_mode", "vectorization_mode", "copy", "render_mode", "resample_documents", "documents_seed",
    *(
        field.name
        for kind in (TaskVariant, InterestEvolution, InterestExploration, LongTermSatisfaction)
        for field in dataclasses.fields(kind)
    ),
})  # fmt: skip
"""Arguments of environments that are taken from a file. None names a folder, an address, a variable or code: ``world``
is taken only if it is built in; ``reward``, ``choice`` and ``dynamics`` are names of what this process has registered.
"""
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_ -]{0,60}")
DEEPEST = 4
MOST_LANES = 4_096
MOST = {
    "slate_size": 200, "num_candidates": 2_000, "history": 1_000, "threads": 256, "horizon": 10**6,
    "max_episode_steps": 10**6,
}  # fmt: skip
"""Largest values taken from a file; a larger environment is made by the caller."""
GIVE = "make it yourself and pass load(path, env=...)"
CONFIG_KEYS = {"agent", "config", "seed", "num_timesteps", "streams", "catalog", "extra", "lanes"}

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Saved:
    """The content of an agent's file."""

    description: dict[str, Any]
    arrays: Arrays
    env_spec: dict[str, Any]


def with_suffix(path: str | Path) -> Path:
    """The path, with ".zip" added where it has no suffix."""
    target = Path(path)
    return target if target.suffix else target.with_suffix(".zip")


def write(path: str | Path, saved: Saved) -> Path:
    """Writes an agent's file, whole or not at all."""
    from safetensors.numpy import save

    system = {"recsim_llm": __version__, "python": platform.python_version(), "platform": platform.platform()}
    system |= {name: metadata.version(name) for name in ("numpy", "gymnasium", "safetensors")}
    members = {
        "format_version": str(FORMAT).encode(),
        "config.json": _json(saved.description),
        "weights.safetensors": save({name: np.asarray(array, order="C") for name, array in saved.arrays.items()}),
        "env_spec.json": _json(saved.env_spec),
        "system_info.json": _json(system),
    }
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, EPOCH), content)
    target = with_suffix(path)
    write_file(target, sink.getvalue())
    return target


def read(path: str | Path) -> Saved:
    """Reads an agent's file.

    Raises:
        ConfigError: If there is no such file.
        DataError: If it is not an agent's file of this format, or was altered.
    """
    source = with_suffix(path)
    if not source.is_file():
        raise ConfigError(f"{source} is no file; name one that was written by save()")
    try:
        with zipfile.ZipFile(source) as archive:
            members = _members(archive, source)
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{source} cannot be read as an agent's file: {error}") from error
    description, env_spec = (_parsed(members[name], source, name) for name in ("config.json", "env_spec.json"))
    if set(description) != CONFIG_KEYS:
        raise DataError(f"{source}: config.json has other keys than expected: {sorted(set(description) ^ CONFIG_KEYS)}")
    return Saved(description, _arrays(members["weights.safetensors"], source), env_spec)


def fill(target: Mapping[str, NDArray[Any]], given: Arrays, source: object) -> None:
    """Copies arrays into those of the same names.

    Raises:
        DataError: If names, shapes or types differ.
    """
    if set(given) != set(target):
        raise DataError(f"{source}: arrays differ from this agent's: {sorted(set(given) ^ set(target))}")
    for name, array in target.items():
        seen = given[name]
        if seen.shape != array.shape or seen.dtype != array.dtype:
            raise DataError(
                f"{source}: array {name} is {seen.dtype} {seen.shape}, this agent's is {array.dtype} {array.shape}; "
                "it was saved with other settings or for another catalogue"
            )
    for name, array in target.items():
        array[...] = given[name]


def spec_of(env: Any) -> dict[str, Any]:
    """Id, arguments and number of lanes of an environment, as far as they can be written as JSON."""
    spec = getattr(env, "spec", None) or getattr(env.unwrapped, "spec", None)
    if spec is None:
        return {"id": None, "num_envs": None, "kwargs": {}, "complete": False}
    kwargs, complete = {}, True
    for name, value in spec.kwargs.items():
        try:
            kwargs[name] = json.loads(json.dumps(value))
        except (TypeError, ValueError):
            if name != "autoreset_mode":
                complete = False
    kwargs.pop("num_envs", None)
    return {"id": spec.id, "num_envs": getattr(env, "num_envs", None), "kwargs": kwargs, "complete": complete}


def env_from(spec: Mapping[str, Any], source: object) -> Any:
    """Makes the environment that a file names: one of this package, in a built-in world, from plain arguments.

    Nothing is imported, and no argument is taken that could name a folder, an address, a variable or code.

    Raises:
        ConfigError: If the environment may not, or cannot, be made from the file.
    """
    import gymnasium as gym

    name, lanes, kwargs = spec.get("id"), spec.get("num_envs"), spec.get("kwargs")
    if not spec.get("complete") or not isinstance(kwargs, dict):
        raise ConfigError(f"{source} does not name its environment completely; {GIVE}")
    if not isinstance(name, str) or name not in gym.registry:
        raise unknown("environment", name, [key for key in gym.registry if key.startswith(OWN_IDS)])
    if not name.startswith(OWN_IDS):
        raise ConfigError(f"{source} names the environment {name!r}, which is not one of this package; {GIVE}")
    _check_arguments(kwargs, source)
    _check_size(lanes, kwargs, source)
    try:
        return gym.make(name, **kwargs) if lanes is None else gym.make_vec(name, num_envs=lanes, **kwargs)
    except MissingExtraError:
        raise
    except Exception as error:  # whatever the values of a file of other people's lead to
        raise ConfigError(f"{source}: its environment {name} cannot be made: {error}; {GIVE}") from error


def _check_arguments(kwargs: Mapping[str, Any], source: object) -> None:
    """Refuses arguments that are not on the list, and values that are not plain."""
    for name, value in kwargs.items():
        if name not in ARGUMENTS:
            raise ConfigError(f"{source}: the argument {name!r} of its environment is not taken from a file; {GIVE}")
        if name == "world" and value is not None and value not in built_in_worlds():
            raise ConfigError(f"{source}: the world {value!r} of its environment is not built in; {GIVE}")
        told = f"{source}: the argument {name}={str(value)[:60]!r} of its environment"
        if name == "vectorization_mode" and value != "vector_entry_point":
            raise ConfigError(f"{told} is not the compiled simulator; {GIVE}")
        if not _is_plain(value):
            raise ConfigError(f"{told} is not made of numbers and names; {GIVE}")


def _check_size(lanes: object, kwargs: Mapping[str, Any], source: object) -> None:
    """Refuses what would take more memory than most files' authors meant to ask for."""
    if lanes is not None and not (type(lanes) is int and 1 <= lanes <= MOST_LANES):
        raise ConfigError(f"{source}: num_envs={lanes!r} of its environment must lie in 1..{MOST_LANES}; {GIVE}")
    for name, most in MOST.items():
        value = kwargs.get(name)
        if value is not None and not (type(value) is int and 0 <= value <= most):
            raise ConfigError(f"{source}: {name}={value!r} of its environment must lie in 0..{most}; {GIVE}")


def _is_plain(value: object, depth: int = 0) -> bool:
    """Whether a value is made of numbers, truth values and names."""
    if value is None or isinstance(value, bool | int | float):
        return True
    if isinstance(value, str):
        return NAME.fullmatch(value) is not None
    if depth == DEEPEST:
        return False
    if isinstance(value, list):
        return all(_is_plain(one, depth + 1) for one in value)
    return isinstance(value, dict) and all(
        _is_plain(key, depth + 1) and _is_plain(one, depth + 1) for key, one in value.items()
    )


def _members(archive: zipfile.ZipFile, source: Path) -> dict[str, bytes]:
    infos = archive.infolist()
    if sorted(info.filename for info in infos) != sorted(MEMBERS):
        raise DataError(f"{source} holds {[info.filename for info in infos][:8]}, expected {list(MEMBERS)}")
    for info in infos:
        most = MOST_BYTES if info.filename == "weights.safetensors" else MOST_JSON_BYTES
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > min(most, source.stat().st_size):
            raise DataError(f"{source}: {info.filename} is compressed or too large")
    members = {info.filename: archive.read(info) for info in infos}
    version = members["format_version"].decode("ascii", "replace").strip()
    if version != str(FORMAT):
        raise DataError(f"{source} has format {version!r}, this version of recsim_llm reads {FORMAT}")
    return members


def _parsed(content: bytes, source: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{source}: {name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"{source}: {name} must hold an object, got {type(value).__name__}")
    return value


def _arrays(content: bytes, source: Path) -> Arrays:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays: Arrays = load(content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{source}: weights.safetensors cannot be read: {error}") from error
    return {name: array.copy() for name, array in arrays.items()}


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode()
