"""Objects in Python files of the user: FILE.py:NAME."""

import hashlib
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from lottery_jax.errors import InputError

USER_OBJECT = re.compile(r"(.+\.py):([A-Za-z_][A-Za-z0-9_]*)")
"""A name in a file of the user: FILE.py:NAME."""


def user_object(word: str, option: str) -> tuple[ModuleType, Any]:
    """The module of a file and the object that FILE.py:NAME names; the file is run once.

    Args:
        word: Matches `USER_OBJECT`.
        option: The option in words, at the start of a refusal.

    Returns:
        The object is None if the file has no such name.

    Raises:
        InputError: The file does not exist, or fails.
    """
    file, _, name = word.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise InputError(f"{option} {word!r} names a file that does not exist; check the path")
    module_name = f"_user_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}"
    if module_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module  # dataclasses look their module up
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[module_name]
            raise InputError(f"{str(path)!r} cannot be run ({type(error).__name__}: {error}); correct it") from error
    return sys.modules[module_name], getattr(sys.modules[module_name], name, None)
