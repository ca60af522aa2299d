"""What a model call costs, from a price file that users edit."""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from urllib.parse import urlsplit

from kernelevolve_lab import paths
from kernelevolve_lab.errors import BadInput

MILLION = 1_000_000
_DATE = re.compile(r"[-@](?:\d{4}-\d{2}-\d{2}|\d{8})$")


@dataclass(frozen=True)
class Price:
    """USD per million tokens of input, output, and input found in the provider's cache."""

    input: float
    output: float
    cached_input: float | None = None

    def cost(self, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> float:
        """USD for one call; `cached_tokens` are part of `input_tokens`."""
        cached = min(cached_tokens, input_tokens)
        cached_rate = self.input if self.cached_input is None else self.cached_input
        return ((input_tokens - cached) * self.input + cached * cached_rate + output_tokens * self.output) / MILLION


FREE = Price(0.0, 0.0, 0.0)


def user_file() -> Path:
    """Where a person's own prices are read from, whether or not the file exists."""
    return Path(os.environ.get("KERNELEVOLVE_PRICES") or paths.data_dir() / "prices.toml")


def price_of(model: str, base_url: str, named: str = "") -> Price | None:
    """The price of a model at an endpoint, by the file `named` (default: the person's own) and the shipped one; free on this machine unless
    a file names the model, None where nobody knows."""
    shipped = _read(resources.files(__package__).joinpath("prices.toml").read_text("utf-8"), "prices.toml")
    own = Path(named) if named else user_file()
    mine = read_file(own) if named or own.is_file() else {}
    for name in _names(model):
        if name in mine or name in shipped:
            return mine.get(name) or shipped[name]
    return FREE if is_local(base_url) else None


def is_local(base_url: str) -> bool:
    """Whether an endpoint is on this machine."""
    host = urlsplit(base_url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _names(model: str) -> list[str]:
    bare = model.rsplit("/", 1)[-1]
    return [model, bare, _DATE.sub("", model), _DATE.sub("", bare)]


def read_file(path: str | Path) -> dict[str, Price]:
    """The prices in a file, read again when it changes; raises `BadInput` where it cannot be read or is not a price file."""
    try:
        return _read_file(str(path), Path(path).stat().st_mtime_ns)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"The price file {path} cannot be read: {error}. Mend it, or name another.") from None


@lru_cache(maxsize=8)
def _read_file(path: str, changed: int) -> dict[str, Price]:
    return _read(Path(path).read_text("utf-8"), path)


def _read(text: str, where: str) -> dict[str, Price]:
    try:
        entries = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"The price file {where} is not valid TOML: {error}.") from None
    prices = {}
    for name, entry in entries.items():
        known = {"input", "output", "cached_input"}
        numbers = isinstance(entry, dict) and {"input", "output"} <= entry.keys() <= known
        if not numbers or not all(isinstance(value, int | float) and value >= 0 for value in entry.values()):
            raise BadInput(
                f'The price file {where} must give "{name}" as {{ input = USD, output = USD, cached_input = USD }}, per million tokens.'
            )
        prices[name] = Price(**{key: float(value) for key, value in entry.items()})
    return prices
