"""What a proposer lets people set, as front ends need it to make choosers: read from the pydantic model that the proposer names."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

from kernelevolve_lab import registry
from kernelevolve_lab.errors import BadInput

FIRST = ("model", "base_url", "concurrency")
"""What belongs in sight; the rest is folded away."""

HELP = {
    "model": "One model, or several with weights: big*1, small*3",
    "base_url": "Any endpoint that speaks OpenAI's chat-completions format; empty: OPENAI_BASE_URL, else OpenAI",
    "concurrency": "How many requests may be in flight at once",
    "model_choice": "Draw among several models by their weights, or by what each has gained for its price",
    "model_share": "How often the model is asked where a template could answer as well (0 to 1)",
    "temperature": "Empty: the endpoint's own",
    "reasoning_effort": "Such as low, medium or high, where the model knows it",
    "context_tokens": "How long a prompt may be, in tokens",
    "max_output_tokens": "How long a reply may be, its reasoning included, in tokens",
    "retries": "How often a request that failed is sent again",
    "repairs": "How often an unusable reply is sent back with the reason",
    "silence_seconds": "How long an endpoint may send nothing",
    "request_seconds": "How long one request may take altogether",
    "prices": "Path of a price file of your own",
    "price_input": "USD per million tokens sent; overrides the price file",
    "price_output": "USD per million tokens received; overrides the price file",
    "knowledge": "Pages of the knowledge base in the prompt",
    "lessons": "What earlier runs learned in the prompt",
    "diagnosis": "What limits the parent: found by rules, by asking the model as well, or left out",
    "tunable": "Invite the model to declare constants, which are then tuned without asking it",
    "tools": "Let the model look things up and compile before it answers",
    "tool_calls": "How many tools it may call for one candidate",
}


def offered(proposer: str) -> list[dict[str, Any]]:
    """The options of a registered proposer: name, kind (`flag`, `choice`, `whole`, `number` or `text`), default, bounds, choices, help, and
    whether it comes first. Empty for a proposer that names no settings."""
    settings = getattr(registry.load("proposers", proposer), "settings", None)
    if settings is None:
        return []
    described = settings().model_json_schema()["properties"]
    found = [_option(name, schema) for name, schema in described.items() if "const" not in schema]
    return sorted(found, key=lambda option: FIRST.index(option["name"]) if option["first"] else len(FIRST))


def _option(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    schema = {**schema, **next((part for part in schema.get("anyOf", ()) if part["type"] != "null"), {})}
    kind = "choice" if "enum" in schema else {"boolean": "flag", "integer": "whole", "number": "number"}.get(schema["type"], "text")
    return {
        "name": name,
        "kind": kind,
        "default": schema.get("default"),
        "least": schema.get("minimum"),
        "most": schema.get("maximum"),
        "choices": schema.get("enum", []),
        "help": HELP.get(name, ""),
        "first": name in FIRST,
    }


def endpoint(proposer: str, options: dict[str, Any], max_cost: float | None) -> dict[str, Any]:
    """What stands in the way of asking a model with these options: `host`, where its key comes from (`key`), and `problem`, a sentence that
    is empty where nothing does. Never the key itself."""
    from kernelevolve_lab.proposers.chat import settings as chat

    base_url = chat.endpoint(str(options.get("base_url") or ""))
    told = {"host": urlsplit(base_url).hostname, "key": chat.key_source(base_url), "problem": ""}
    if told["key"] == "none":
        return told
    try:
        registry.load("proposers", proposer).check(options)
    except BadInput as error:
        return told | {"problem": str(error)}
    made = chat.read({name: value for name, value in options.items() if name in chat.ChatSettings.model_fields})
    unknown = [model for model in made.models if made.price(model) is None]
    if max_cost and unknown:
        told["problem"] = (
            f"The price of '{unknown[0]}' is not known, so a cap of {max_cost:g} USD cannot be kept: give both prices under More options, "
            "or leave the cap empty."
        )
    return told


def remember_key(key: str, base_url: str) -> None:
    """Keep a key for an endpoint in this process (see `kel.use_key`)."""
    from kernelevolve_lab.proposers.chat import settings as chat

    chat.use_key(key, chat.endpoint(base_url))


def otherwise() -> dict[str, str]:
    """What holds where a chooser is left empty."""
    from kernelevolve_lab.proposers.chat.settings import DEFAULT_BASE_URL

    return {"model": os.environ.get("KERNELEVOLVE_MODEL", ""), "base_url": os.environ.get("OPENAI_BASE_URL") or DEFAULT_BASE_URL}
