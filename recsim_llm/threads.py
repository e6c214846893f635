"""Context manager: PyTorch on one thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from recsim_llm.errors import require


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread, so that sums come in one order; afterwards as it was."""
    torch = require("torch", "llm")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
