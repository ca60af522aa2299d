"""The proposer `chat`: an LLM behind any endpoint that speaks OpenAI's chat-completions format."""

from kernelevolve_lab.proposers.chat.proposer import ChatProposer, create
from kernelevolve_lab.proposers.chat.settings import ChatSettings, use_key

__all__ = ["ChatProposer", "ChatSettings", "create", "use_key"]
