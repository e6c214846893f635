"""The wrappers for vector environments, under the same names as the scalar ones."""

from recsim_llm.envs.wrappers.enumeration import VectorSlateEnumeration as SlateEnumeration
from recsim_llm.envs.wrappers.flat import VectorFlatObservation as FlatObservation
from recsim_llm.envs.wrappers.proto import VectorProtoAction as ProtoAction
from recsim_llm.envs.wrappers.reward import VectorVectorReward as VectorReward
from recsim_llm.envs.wrappers.sessions import VectorRecordSessions as RecordSessions

__all__ = ["FlatObservation", "ProtoAction", "RecordSessions", "SlateEnumeration", "VectorReward"]
