"""Where the lab keeps its files.

`KERNELEVOLVE_HOME` moves everything; otherwise data goes to `$XDG_DATA_HOME/kernelevolve-lab` (default `~/.local/share`) and what can be
made again (builds, measured ceilings, compiled baselines) to `$XDG_CACHE_HOME/kernelevolve-lab` (default `~/.cache`).
"""

import os
from pathlib import Path

APP = "kernelevolve-lab"


def _base(variable: str, fallback: str) -> Path:
    home = os.environ.get("KERNELEVOLVE_HOME")
    if home:
        return Path(home).expanduser() / fallback.rsplit("/", 1)[-1]
    return Path(os.environ.get(variable) or Path.home() / fallback).expanduser() / APP


def data_dir() -> Path:
    """The folder of runs and lessons; not created here."""
    return _base("XDG_DATA_HOME", ".local/share")


def cache_dir() -> Path:
    """The folder of what can be made again; not created here."""
    return _base("XDG_CACHE_HOME", ".cache")


def default_store_url() -> str:
    """The URL of the store that is used when none is named: `$KERNELEVOLVE_STORE`, else an SQLite file in `data_dir()`."""
    return os.environ.get("KERNELEVOLVE_STORE") or f"sqlite:///{data_dir() / 'lab.db'}"
