"""Studies that answer one question each, with their reports."""
