"""The agent protocol, the environment runner, files, logs and callbacks."""
