"""The wrappers for vector environments, under the same names as the scalar ones."""

from recsim_llm.envs.wrappers.flat_observation import VectorFlatObservation as FlatObservation
from recsim_llm.envs.wrappers.proto_actions import VectorProtoAction as ProtoAction
from recsim_llm.envs.wrappers.record_sessions import VectorRecordSessions as RecordSessions
from recsim_llm.envs.wrappers.slate_enumeration import VectorSlateEnumeration as SlateEnumeration
from recsim_llm.envs.wrappers.vector_reward import VectorVectorReward as VectorReward

__all__ = ["FlatObservation", "ProtoAction", "RecordSessions", "SlateEnumeration", "VectorReward"]
