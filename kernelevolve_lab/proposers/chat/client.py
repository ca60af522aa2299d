"""One request to a chat-completions endpoint: streamed, bounded in time, size and money, and sent again where that can help.

The `openai` library speaks the protocol; its own retries are off, because here each try must be paid for from the purse beforehand, a reply
that breaks off in mid-stream must be asked for again, and the live view must say what is being waited for.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import openai

from kernelevolve_lab.proposers.chat.failures import Failure, Garbled, ReplyTooLong, classify
from kernelevolve_lab.proposers.chat.prices import Price
from kernelevolve_lab.proposers.chat.purse import Purse
from kernelevolve_lab.proposers.chat.settings import ChatSettings, key_for

MAX_REPLY_BYTES = 1_000_000
LONGEST_WAIT = 300.0
_PER_MESSAGE = 64
MASK = "[key]"


@dataclass(frozen=True)
class Usage:
    """Tokens of one or several requests and what they cost in USD (None: no price is known). `cached` are part of `input`. Where an
    endpoint did not report its count, the most it can have been is counted (one token a byte)."""

    input: int = 0
    output: int = 0
    cached: int = 0
    cost: float | None = 0.0

    def __add__(self, other: Usage) -> Usage:
        cost = None if self.cost is None or other.cost is None else self.cost + other.cost
        return Usage(self.input + other.input, self.output + other.output, self.cached + other.cached, cost)


@dataclass(frozen=True)
class ToolCall:
    """A call that the model asks for; `arguments` is JSON as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class ChatReply:
    """What came back. `usage` includes tries that failed but may have been charged."""

    text: str
    finish_reason: str
    usage: Usage
    refusal: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Terms:
    """Of whom and on what terms to ask: the model, its price (None: unknown), the cap on the run's money in USD (None: no cap; a cap needs
    a price), and what is called with pieces of text as they arrive."""

    model: str
    price: Price | None = None
    cap: float | None = None
    emit: Callable[[str], None] = lambda text: None


class ChatFailed(Exception):
    """No reply; `failure` says why, `usage` what was spent in trying, `partial` what had arrived."""

    def __init__(self, failure: Failure, usage: Usage, partial: str = "") -> None:
        super().__init__(failure.sentence)
        self.failure = failure
        self.usage = usage
        self.partial = partial


@dataclass
class _Arriving:
    """A reply as it arrives."""

    text: list[str] = field(default_factory=list)
    refusal: list[str] = field(default_factory=list)
    calls: dict[int, dict[str, str]] = field(default_factory=dict)
    finish_reason: str = ""
    bytes: int = 0
    chunks: int = 0
    usage: Any = None

    def absorb(self, chunk: Any, emit: Callable[[str], None]) -> None:
        self.chunks += 1
        self.usage = getattr(chunk, "usage", None) or self.usage
        for choice in chunk.choices or ():
            delta = choice.delta
            self.finish_reason = choice.finish_reason or self.finish_reason
            if delta is None:
                continue
            if delta.content:
                self.text.append(delta.content)
                emit(delta.content)
            if getattr(delta, "refusal", None):
                self.refusal.append(delta.refusal)
            reasoning = getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None) or ""
            arguments = ""
            for call in delta.tool_calls or ():
                slot = self.calls.setdefault(call.index, {"id": "", "name": "", "arguments": ""})
                slot["id"] = call.id or slot["id"]
                if call.function:
                    slot["name"] += call.function.name or ""
                    slot["arguments"] += call.function.arguments or ""
                    arguments += call.function.arguments or ""
            self.bytes += sum(len(str(part).encode("utf-8", "replace")) for part in (delta.content or "", reasoning, arguments))
        if self.bytes > MAX_REPLY_BYTES:
            raise ReplyTooLong(f"the reply passed {MAX_REPLY_BYTES // 1000} kB and was dropped")


class Masked:
    """Passes pieces of text on without a secret that may lie across several of them."""

    def __init__(self, emit: Callable[[str], None], secret: str) -> None:
        self._emit, self._secret = emit, secret
        self._held = ""

    def __call__(self, piece: str) -> None:
        text = self._held + piece
        if self._secret:
            text = text.replace(self._secret, MASK)
        begun = next((n for n in range(min(len(text), len(self._secret) - 1), 0, -1) if self._secret.startswith(text[-n:])), 0)
        self._held = text[len(text) - begun :]
        if begun < len(text):
            self._emit(text[: len(text) - begun])

    def flush(self) -> None:
        """Pass on what was held back because the secret might have begun there."""
        if self._held:
            self._emit(self._held)
        self._held = ""


class ChatClient:
    """A connection to one endpoint, shared by all requests of a run; used from one event loop."""

    def __init__(self, settings: ChatSettings, purse: Purse, seed: int = 0) -> None:
        self._settings = settings
        self._key = key_for(settings.base_url)
        self._purse = purse
        self._random = random.Random(seed)
        self._refused: set[str] = set()
        self._not_before = 0.0
        self._api = openai.AsyncOpenAI(
            api_key=self._key.get_secret_value(),
            base_url=settings.base_url,
            max_retries=0,
            timeout=openai.Timeout(settings.silence_seconds, connect=min(15.0, settings.silence_seconds)),
        )

    async def close(self) -> None:
        """Release the connections."""
        await self._api.close()

    async def ask(self, messages: list[dict[str, Any]], terms: Terms, tools: list[dict[str, Any]] | None = None) -> ChatReply:
        """Send messages and wait for the whole reply.

        Raises `CapReached` where the worst case does not fit under the cap, else `ChatFailed`.
        """
        model, price, cap, emit = terms.model, terms.price, terms.cap, terms.emit
        spent, tries, began = Usage(cost=None if price is None else 0.0), 0, time.monotonic()
        while True:
            await self._wait_for_turn(emit)
            worst = self._worst_case(messages, tools, price)
            async with self._purse.reserve(worst.cost or 0.0, cap) as reservation:
                arriving = _Arriving()
                try:
                    async with asyncio.timeout(self._settings.request_seconds):
                        await self._stream(arriving, messages, model, tools, Masked(emit, self._secret))
                    used = self._count(arriving, worst, price)
                    failure = None
                except asyncio.CancelledError:
                    raise
                except Exception as error:
                    failure = self._without_key(classify(error, self._settings.base_url, model))
                    charged = failure.charged or arriving.chunks > 0
                    used = self._count(arriving, worst, price) if charged else Usage(cost=None if price is None else 0.0)
                reservation.settle(used.cost or 0.0)
            spent += used
            text = self._redact("".join(arriving.text))
            if failure is None:
                calls = tuple(ToolCall(**slot) for _, slot in sorted(arriving.calls.items()))
                refusal = self._redact("".join(arriving.refusal))
                return ChatReply(text, arriving.finish_reason or "stop", spent, refusal, calls, time.monotonic() - began)
            if failure.kind == "parameter" and failure.parameter not in self._refused:
                self._refused.add(failure.parameter)
                if not {"max_tokens", "max_completion_tokens"} <= self._refused:
                    continue
            tries += 2 if failure.charged else 1  # what may have been paid for is sent again half as often
            if failure.kind != "retry" or tries > self._settings.retries:
                if failure.unknown_model:
                    failure = replace(failure, sentence=f"{failure.sentence}{await self._models_offered()}")
                raise ChatFailed(replace(failure, kind="fatal" if failure.kind == "parameter" else failure.kind), spent, text) from None
            self._delay(failure, tries, spent, text)
            emit(f"\n[{failure.sentence}; trying again]\n")

    async def _stream(self, arriving: _Arriving, messages: list[dict], model: str, tools: list[dict] | None, emit: Masked) -> None:
        stream = await self._api.chat.completions.create(model=model, messages=messages, stream=True, **self._parameters(tools))
        try:
            async for chunk in stream:
                arriving.absorb(chunk, emit)
        finally:
            emit.flush()
            await stream.close()
        if not arriving.chunks:
            raise Garbled("no event of a completion in the reply")
        if not arriving.finish_reason and not arriving.usage:
            raise Garbled("the stream ended before the reply did")

    def _parameters(self, tools: list[dict] | None) -> dict[str, Any]:
        """Optional parameters, less those that this endpoint refused before."""
        settings = self._settings
        # OpenAI's newer models refuse `max_tokens`; other servers may ignore `max_completion_tokens`, and then no limit would hold.
        limits = ["max_completion_tokens", "max_tokens"]
        if not urlsplit(settings.base_url).netloc.endswith(("openai.com", "azure.com")):
            limits.reverse()
        limit = next((name for name in limits if name not in self._refused), limits[0])
        wanted: dict[str, Any] = {
            limit: settings.max_output_tokens,
            "stream_options": {"include_usage": True},
            "temperature": settings.temperature,
            "reasoning_effort": settings.reasoning_effort or None,
            "tools": tools,
        }
        return {name: value for name, value in wanted.items() if value is not None and name not in self._refused}

    def _worst_case(self, messages: list[dict], tools: list[dict] | None, price: Price | None) -> Usage:
        """What the next try can cost at most: no tokenizer makes more tokens than there are bytes."""
        given = sum(len(repr(message).encode()) + _PER_MESSAGE for message in messages) + len(repr(tools or "").encode())
        output = self._settings.max_output_tokens
        return Usage(given, output, 0, None if price is None else price.cost(given, output))

    def _count(self, arriving: _Arriving, worst: Usage, price: Price | None) -> Usage:
        usage = arriving.usage
        if usage is None or not isinstance(getattr(usage, "prompt_tokens", None), int):
            return worst
        cached = getattr(getattr(usage, "prompt_tokens_details", None), "cached_tokens", None) or 0
        given, made = usage.prompt_tokens, usage.completion_tokens or 0
        return Usage(given, made, cached, None if price is None else price.cost(given, made, cached))

    async def _wait_for_turn(self, emit: Callable[[str], None]) -> None:
        """Wait until the endpoint may be asked again; a rate limit holds all requests back, not only the one that met it."""
        while (wait := self._not_before - time.monotonic()) > 0:
            emit(f"[waiting {wait:.0f} s for the endpoint]\n") if wait > 1 else None
            await asyncio.sleep(wait)

    def _delay(self, failure: Failure, tries: int, spent: Usage, text: str) -> None:
        """Hold requests back: as long as the server asks, else 0.5, 1, 2, … 30 s, less up to a quarter at random."""
        if failure.wait is not None and failure.wait > LONGEST_WAIT:
            sentence = f"{failure.sentence} (it asks to wait {failure.wait:.0f} s; resume the run then)"
            raise ChatFailed(replace(failure, kind="fatal", sentence=sentence), spent, text)
        wait = failure.wait if failure.wait is not None else min(30.0, 0.5 * 2 ** (tries - 1)) * self._random.uniform(0.75, 1.0)
        self._not_before = max(self._not_before, time.monotonic() + wait)

    async def _models_offered(self) -> str:
        """The models that the endpoint lists, as the end of a sentence; empty where it does not say."""
        try:
            async with asyncio.timeout(5):
                names = sorted([model.id async for model in self._api.models.list()])
        except Exception:
            return ""
        return f". It offers: {', '.join(names[:12])}{', …' if len(names) > 12 else ''}" if names else ""

    @property
    def _secret(self) -> str:
        """The key, where it is one that must not be seen; else empty."""
        key = self._key.get_secret_value()
        return key if len(key) >= 8 and key != "none-needed" else ""

    def _redact(self, text: str) -> str:
        """The text without the key, should a server echo it."""
        return text.replace(self._secret, MASK) if self._secret else text

    def _without_key(self, failure: Failure) -> Failure:
        return replace(failure, sentence=self._redact(failure.sentence))
