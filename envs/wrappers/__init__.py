"""Other forms of action, observation and reward, and a recorder: wrappers for environments with a world.

| wrapper | what it changes |
|---|---|
| ProtoAction | the action is a vector in the space of encodings; the nearest items that can be shown are |
| SlateEnumeration | the action is the number of a whole slate of a small catalogue or candidate list |
| FlatObservation | a dict observation becomes one array, in the order of the layout |
| VectorReward | the reward is a vector of objectives, as MO-Gymnasium has it |
| RecordSessions | what was shown and done is written to a Parquet or CSV file |

Those here are for ``gym.make``; :mod:`recsim_llm.envs.wrappers.vector` has the same for ``gym.make_vec``. None of them
handles duplicates or items off the shelf: the environment does, and counts them in ``info["wasted"]``.
"""

from recsim_llm.envs.wrappers.flat_observation import FlatObservation
from recsim_llm.envs.wrappers.proto_actions import ProtoAction
from recsim_llm.envs.wrappers.record_sessions import RecordSessions
from recsim_llm.envs.wrappers.slate_enumeration import SlateEnumeration
from recsim_llm.envs.wrappers.vector_reward import VectorReward

__all__ = ["FlatObservation", "ProtoAction", "RecordSessions", "SlateEnumeration", "VectorReward"]
