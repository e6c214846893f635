"""Peak memory of a piece of work, C libraries included."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
MEBI = 1024.0


class Peak:
    """Measures the highest resident memory inside a with statement, above what was resident at its beginning.

    Where the kernel lets a process reset its own high-water mark (Linux: 5 into ``/proc/self/clear_refs``), that mark
    is read (VmHWM); elsewhere the growth of ``ru_maxrss``, which is 0 for work that needs less than earlier work did.

    Attributes:
        found: "peak_mib" [MiB] and "peak_by", the way it was measured.
    """

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}

    def __enter__(self) -> Self:
        _give_back()
        try:
            RESET.write_text("5")
            self._before, self._by = _status("VmRSS"), "VmHWM"
        except (OSError, KeyError, ValueError):
            self._before, self._by = _highest(), "ru_maxrss"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        after = _status("VmHWM") if self._by == "VmHWM" else _highest()
        self.found = {"peak_mib": round(max(after - self._before, 0.0), 1), "peak_by": self._by}


def _give_back() -> None:
    """Returns memory that was freed, but that the C library kept, to the system: it would hide what is needed next."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _status(name: str) -> float:
    """A line of this process's status [MiB]."""
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if ":" in line)
    return float(lines[name].split()[0]) / MEBI


def _highest() -> float:
    """The highest resident memory so far [MiB]; macOS counts bytes, Linux kibibytes."""
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found / MEBI / (MEBI if sys.platform == "darwin" else 1.0)
