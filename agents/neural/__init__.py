"""Neural recommenders fitted to logs: two towers, sequences, cross-modal, multi-task."""
