"""Turns whatever a request can end with into one of a few kinds, each with a sentence for people."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

import openai

Kind = Literal["retry", "fatal", "parameter", "too_long"]

_QUOTA = ("insufficient_quota", "billing", "exceeded your current quota", "credit balance")
_TOO_LONG = (
    "context_length_exceeded",
    "maximum context length",
    "context window",
    "prompt is too long",
    "too many tokens",
    "exceeds the available context",
)
PARAMETERS = ("stream_options", "max_completion_tokens", "max_tokens", "temperature", "reasoning_effort", "tools")


@dataclass(frozen=True)
class Failure:
    """`retry`: try again, after `wait` seconds where the server said so. `parameter`: the server does not know `parameter`. `too_long`:
    the prompt does not fit the model. `fatal`: no request of this kind can succeed until a person changes something. `charged` says
    whether the server may have done paid work."""

    kind: Kind
    sentence: str
    wait: float | None = None
    parameter: str = ""
    charged: bool = False
    unknown_model: bool = False


class Garbled(Exception):
    """The server answered, but not in the chat-completions format."""


class ReplyTooLong(Exception):
    """The reply passed the size that is accepted."""


def classify(error: BaseException, base_url: str, model: str) -> Failure:
    """Say what an error of one request means."""
    host = urlsplit(base_url).netloc
    if isinstance(error, openai.APITimeoutError | TimeoutError):
        return Failure("retry", f"{host} did not answer in time", charged=True)
    if isinstance(error, openai.APIConnectionError):
        cause = error.__cause__ or error
        began = type(cause).__name__ in ("RemoteProtocolError", "ReadError")
        what = "broke off the reply" if began else "cannot be reached; is the server running and the address right?"
        return Failure("retry", f"{host} {what}", charged=began)
    if isinstance(error, openai.APIStatusError):
        return _status(error, host, model)
    if isinstance(error, Garbled | openai.APIError | ValueError | TypeError | AttributeError | KeyError | IndexError):
        return Failure("retry", f"{host} sent something that is not a chat completion: {_short(str(error))}", charged=True)
    if isinstance(error, ReplyTooLong):
        return Failure("fatal", f"{host}: {error}", charged=True)
    raise error


def _status(error: openai.APIStatusError, host: str, model: str) -> Failure:
    status, said = error.status_code, _short(_message(error))
    code = f"{error.code} {error.type} {_message(error)}".lower()
    if status == 401:
        return Failure("fatal", f"{host} refused the key (401): check OPENAI_API_KEY")
    if status == 402 or any(word in code for word in _QUOTA):
        return Failure("fatal", f"{host} says that the account has no credit left ({status}): {said}")
    if status == 403:
        return Failure("fatal", f"{host} does not allow this key to use '{model}' (403): {said}")
    if status == 404 or (
        status == 400 and "model" in code and any(word in code for word in ("not found", "does not exist", "not exist", "invalid model"))
    ):
        return Failure("fatal", f"{host} has no model '{model}' ({status}): {said}", unknown_model=True)
    if status == 413 or any(word in code for word in _TOO_LONG):
        return Failure("too_long", f"the prompt is too long for '{model}' at {host}: {said}")
    if status in (400, 422):
        named = error.param if error.param in PARAMETERS else next((name for name in PARAMETERS if name in code), "")
        if named:
            return Failure("parameter", f"{host} does not accept '{named}': {said}", parameter=named)
        return Failure("fatal", f"{host} refused the request ({status}): {said}")
    if status in (408, 409, 425, 429) or status >= 500:
        what = "asks to slow down" if status == 429 else "has trouble"
        return Failure("retry", f"{host} {what} ({status}): {said}", wait=retry_after(error.response.headers))
    return Failure("fatal", f"{host} refused the request ({status}): {said}")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by `retry-after-ms` or `Retry-After` (seconds or a date, RFC 9110 section 10.2.3); None where neither is given."""
    try:
        return max(0.0, float(headers["retry-after-ms"]) / 1000)
    except (KeyError, ValueError):
        pass
    value = headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        date = email.utils.parsedate_tz(value)
        return max(0.0, email.utils.mktime_tz(date) - time.time()) if date else None


def _message(error: openai.APIStatusError) -> str:
    body = error.body
    if isinstance(body, dict):
        return str(body.get("message") or body.get("error") or body)
    return str(body or error.message)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 200 else text[:199] + "…"
