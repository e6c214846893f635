"""Writes item texts, personas and their statements from grammars."""
