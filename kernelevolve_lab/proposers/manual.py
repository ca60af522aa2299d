"""The proposer `manual`: proposes nothing itself; a person enqueues sources, and the run waits for them until it is stopped."""

import asyncio
from collections.abc import Mapping

from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.proposers.base import Proposal, ProposalRequest
from kernelevolve_lab.records import TargetSpec


class Manual:
    """Never answers: the loop keeps one request waiting here while it judges what people enqueue."""

    name = "manual"
    concurrency = 1

    async def propose(self, request: ProposalRequest) -> Proposal:
        await asyncio.get_running_loop().create_future()
        raise AssertionError("nobody settles that future")

    async def close(self) -> None:
        pass


def create(operator: Operator, target: TargetSpec, language: str, options: Mapping[str, object], seed: int) -> Manual:
    """Serves every operator, target and language."""
    check(options)
    return Manual()


def check(options: Mapping[str, object]) -> None:
    """Raise `BadInput`: there are no options."""
    if options:
        raise BadInput(f"The manual proposer has no option '{next(iter(options))}', nor any other.")


create.check = check
