"""The turns of one request: what was sent, what came back, what it cost; written down reply by reply, so that a resumed run goes on
where the last one stopped and pays for no reply twice."""

from __future__ import annotations

import json
from typing import Any, Literal

from kernelevolve_lab.proposers.base import Proposal, ProposalRequest
from kernelevolve_lab.proposers.chat.client import ChatReply, ToolCall, Usage
from kernelevolve_lab.records import Candidate
from kernelevolve_lab.records.events import ModelReplied

Message = dict[str, Any]


class Conversation:
    """`messages` are what the next turn sends. `unread` is a reply that was paid for before this process began, to be read first."""

    def __init__(self, request: ProposalRequest, model: str, messages: list[Message]) -> None:
        self.model, self.parents = model, request.parents
        self.messages = messages
        self.unread: ChatReply | None = None
        self._opening = 2
        self._request = request
        self._usage = Usage()

    @classmethod
    def resumed(cls, request: ProposalRequest) -> Conversation | None:
        """The conversation that a killed process began for this request, or None."""
        said = request.state.replies.get(request.index, ())
        recorded = [reply for reply in said if reply.purpose == "candidate"]
        if not recorded:
            return None
        last = recorded[-1]
        conversation = cls(request, last.model, [json.loads(message) for message in last.messages])
        conversation.parents = last.parents
        message = json.loads(last.reply)
        calls = tuple(
            ToolCall(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls", ())
        )
        conversation.unread = ChatReply(message.get("content") or "", last.finish_reason, Usage(), message.get("refusal") or "", calls)
        for reply in request.state.replies[request.index]:
            conversation._usage += Usage(reply.input_tokens, reply.output_tokens, 0, reply.cost)
        return conversation

    @property
    def repairs(self) -> int:
        """How often the model was told that its reply was of no use."""
        return sum(message["role"] == "user" for message in self.messages[self._opening :])

    @property
    def tool_calls(self) -> int:
        """How many calls of tools were answered."""
        return sum(message["role"] == "tool" for message in self.messages)

    def heard(self, reply: ChatReply) -> None:
        """Write a reply down and count it."""
        self._usage += reply.usage
        write_down(self._request, self.model, self.messages, reply, self.parents)

    def spent(self, usage: Usage) -> None:
        """Count what was spent beside the turns of this conversation."""
        self._usage += usage

    def answer(self, reply: ChatReply, *messages: Message) -> None:
        """Go on after a reply with what is to be said to it."""
        self.messages += [_message(reply), *messages]

    def proposal(self, reply: ChatReply | None, candidate: Candidate | None, reason: str = "", exhausted: bool = False) -> Proposal:
        """The outcome of the request, with everything that was said."""
        opening, later = self.messages[: self._opening], self.messages[self._opening :]
        said = [*later, *([_message(reply)] if reply else [])]
        text = said[0].get("content") or "" if len(said) == 1 else _transcript(said)
        return Proposal(
            candidate,
            reason=reason,
            prompt=_transcript(opening),
            reply=text,
            model=self.model,
            input_tokens=self._usage.input,
            output_tokens=self._usage.output,
            cost=self._usage.cost or 0.0,
            exhausted=exhausted,
        )


def write_down(
    request: ProposalRequest,
    model: str,
    messages: list[Message],
    reply: ChatReply,
    parents: tuple[str, ...],
    purpose: Literal["candidate", "diagnosis"] = "candidate",
) -> None:
    """Put a reply into the run's log."""
    request.record(
        ModelReplied(
            index=request.index,
            model=model,
            messages=tuple(json.dumps(message, ensure_ascii=False) for message in messages),
            reply=json.dumps(_message(reply), ensure_ascii=False),
            finish_reason=reply.finish_reason,
            purpose=purpose,
            parents=parents,
            input_tokens=reply.usage.input,
            output_tokens=reply.usage.output,
            cost=reply.usage.cost or 0.0,
            seconds=reply.seconds,
        )
    )


def _message(reply: ChatReply) -> Message:
    message: Message = {"role": "assistant", "content": reply.text}
    if reply.refusal:
        message["refusal"] = reply.refusal
    if reply.tool_calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}} for call in reply.tool_calls
        ]
    return message


def _transcript(messages: list[Message]) -> str:
    """Messages as one text that people can read."""
    parts = []
    for message in messages:
        calls = "".join(f"\n[calls {call['function']['name']}({call['function']['arguments']})]" for call in message.get("tool_calls", ()))
        parts.append(f"===== {message['role']} =====\n{message.get('content') or ''}{calls}\n")
    return "\n".join(parts)
