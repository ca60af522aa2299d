"""The options of the `chat` proposer, and the endpoint it talks to.

Options are stored with the run, so the key is never one of them: it comes from `use_key` (a prompt in the notebook) or from the environment
(`OPENAI_API_KEY`), stays in this process, and is masked wherever a `Key` is printed.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.proposers.chat import prices

DEFAULT_BASE_URL = "https://api.openai.com/v1"
_SECRET_NAME = re.compile(r"key|secret|token$|password|credential|authorization", re.IGNORECASE)
_keys: dict[str, SecretStr] = {}


class ChatSettings(BaseModel):
    """What can be set. `model` may name several, weighted: `big-model*1, small-model*3`.

    `context_tokens` bounds the prompt and `max_output_tokens` the reply (reasoning included). `silence_seconds` is how long an endpoint may
    send nothing, `request_seconds` how long one request may take altogether, `retries` how often a failed one is sent again, `repairs` how
    often an unusable reply is sent back with the reason. `tunable` invites the model to declare constants to be tuned. `prices` is the path
    of a price file; `price_input` and `price_output` (USD per million tokens) override what any file says. `knowledge`, `lessons` and
    `diagnosis` can be switched off, to see what they are good for. `tools` lets the model call tools, at most `tool_calls` times for one
    candidate.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    model: str = ""
    base_url: str = ""
    model_choice: Literal["weights", "bandit"] = "weights"
    temperature: float | None = Field(None, ge=0, le=2)
    reasoning_effort: str = ""
    context_tokens: int = Field(48_000, ge=4_000)
    max_output_tokens: int = Field(16_000, ge=256)
    concurrency: int = Field(4, ge=1, le=64)
    retries: int = Field(5, ge=0, le=20)
    repairs: int = Field(1, ge=0, le=5)
    silence_seconds: float = Field(300.0, gt=0)
    request_seconds: float = Field(1_200.0, gt=0)
    prices: str = ""
    price_input: float | None = Field(None, ge=0)
    price_output: float | None = Field(None, ge=0)
    knowledge: bool = True
    lessons: bool = True
    diagnosis: Literal["rules", "model", "off"] = "rules"
    tunable: bool = False
    tools: bool = False
    tool_calls: int = Field(6, ge=1, le=50)

    def price(self, model: str) -> prices.Price | None:
        """What that model costs here, or None where it is not known."""
        if self.price_input is not None and self.price_output is not None:
            return prices.Price(self.price_input, self.price_output)
        return prices.price_of(model, self.base_url, self.prices)

    @property
    def models(self) -> dict[str, float]:
        """The models with their weights."""
        weights: dict[str, float] = {}
        for part in filter(None, (part.strip() for part in self.model.split(","))):
            name, _, weight = part.partition("*")
            try:
                weights[name.strip()] = float(weight or 1)
            except ValueError:
                raise BadInput(f"The model '{part}' is not of the form 'name*weight'; give for example 'big*1, small*3'.") from None
        if not weights or any(weight <= 0 for weight in weights.values()):
            raise BadInput("Name at least one model, each with a weight above zero.")
        return weights


def use_key(key: str, base_url: str = "") -> None:
    """Use this key for the endpoint (default: every endpoint) as long as this process lives; it is kept nowhere else. Raises `BadInput` for
    an empty one, and for one that cannot stand in a header."""
    text = key.strip()
    if not text or not text.isascii() or not text.isprintable():
        raise BadInput("That is no key: it is empty, or holds characters that no key has.")
    _keys[_origin(base_url) if base_url else ""] = SecretStr(text)


def endpoint(base_url: str = "") -> str:
    """The base URL that is meant: the one given, else that of the environment (`OPENAI_BASE_URL`), else OpenAI's. Raises `BadInput` for
    what is no such URL, or would carry a secret."""
    base_url = (base_url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_BASE_URL).rstrip("/")
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadInput("The base URL of the chat endpoint must begin with http:// or https:// and name a host.")
    if parts.username or parts.password or parts.query:
        raise BadInput("The base URL of the chat endpoint must hold no user name, password or query; set OPENAI_API_KEY instead.")
    return base_url


KeySource = Literal["entered", "environment", "not needed", "none"]


def key_source(base_url: str) -> KeySource:
    """Where the key for an endpoint comes from: servers on this machine mostly want none."""
    return _found_key(base_url)[0]


def key_for(base_url: str) -> SecretStr:
    """The key for an endpoint; a placeholder where none is needed.

    Raises `BadInput` where there is none.
    """
    source, key = _found_key(base_url)
    if source == "none":
        host = urlsplit(base_url).hostname
        raise BadInput(f"No key for {host}: set OPENAI_API_KEY in the environment, or enter one in a notebook by kel.use_key().")
    return key


def _found_key(base_url: str) -> tuple[KeySource, SecretStr]:
    if entered := _keys.get(_origin(base_url)) or _keys.get(""):
        return "entered", entered
    if known := os.environ.get("OPENAI_API_KEY", "").strip():
        return "environment", SecretStr(known)
    return ("not needed", SecretStr("none-needed")) if prices.is_local(base_url) else ("none", SecretStr(""))


def check(options: Mapping[str, object]) -> None:
    """Raise `BadInput` where a run with these options could not ask its model: before the run is created and its options are stored."""
    key_for(read(options).base_url)


def read(options: Mapping[str, object]) -> ChatSettings:
    """The settings from a run's options and the environment; raises `BadInput` with one sentence where something does not fit."""
    for name in options:
        if name not in ChatSettings.model_fields:
            if _SECRET_NAME.search(name):
                raise BadInput(f"The option '{name}' looks like a secret, and options are stored; set OPENAI_API_KEY instead.")
            near = difflib.get_close_matches(name, ChatSettings.model_fields, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(ChatSettings.model_fields)}."
            raise BadInput(f"The chat proposer has no option '{name}'; {hint}")
    try:
        settings = ChatSettings(**options)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        raise BadInput(f"The option '{'.'.join(map(str, problem['loc']))}' of the chat proposer is wrong: {problem['msg']}.") from None
    base_url = endpoint(settings.base_url)
    settings = settings.model_copy(update={"base_url": base_url, "model": settings.model or os.environ.get("KERNELEVOLVE_MODEL", "")})
    if not settings.model:
        raise BadInput(f"No model is named for {urlsplit(base_url).hostname}: set KERNELEVOLVE_MODEL, or give the option 'model'.")
    _ = settings.models
    if settings.prices:
        prices.read_file(settings.prices)
    return settings


def _origin(base_url: str) -> str:
    parts = urlsplit(base_url)
    return f"{parts.scheme}://{parts.netloc}"
