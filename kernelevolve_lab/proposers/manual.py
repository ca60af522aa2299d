"""The proposer `manual`: proposes nothing itself; a person enqueues sources, and the run waits for them until it is stopped."""

import asyncio

from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.proposers.base import Proposal, ProposalRequest
from kernelevolve_lab.records import Scalar, TargetSpec


class Manual:
    """Never answers: the loop keeps one request waiting here while it judges what people enqueue."""

    name = "manual"
    concurrency = 1

    async def propose(self, request: ProposalRequest) -> Proposal:
        await asyncio.get_running_loop().create_future()
        raise AssertionError("nobody settles that future")

    async def close(self) -> None:
        pass


def create(operator: Operator, target: TargetSpec, language: str, options: dict[str, Scalar], seed: int) -> Manual:
    """Serves every operator, target and language."""
    return Manual()
