"""How many processor cores there are for this process."""

import os


def cores() -> int:
    """Cores that this process may use: in a container, or as one of many on a host, not all of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
