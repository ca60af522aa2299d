"""Monte Carlo tree search: UCT over the tree of candidates.

The tree is the run's own: a draft hangs below a virtual root, a candidate below its first parent. Fitness is normalised to [0, 1] by its
rank among the candidates seen (speedups have no natural scale, and one outlier must not flatten the rest). A node's value is the best in
its subtree rather than the mean: a search for the fastest kernel gains nothing from good averages. Expanding a node again has to stay
possible, since a proposer can answer the same question in many ways, so each node competes with its children as one more arm.
"""

import math
import random
from dataclasses import dataclass, field

from kernelevolve_lab.engine.policies.base import Choice, candidates_for_parents, new_start, pinned
from kernelevolve_lab.records.run_state import Entry, RunState

EXPLORATION = 0.7
PINNED_SHARE = 0.4


@dataclass
class _Node:
    entry: Entry | None
    reward: float
    children: list["_Node"] = field(default_factory=list)
    visits: int = 1
    best: float = 0.0


class Mcts:
    """Balances the promise of a branch against how little it was tried."""

    name = "mcts"

    def choose(self, state: RunState, rng: random.Random, draft_target: int) -> Choice:
        if start := new_start(state, rng, draft_target):
            return start
        entries = candidates_for_parents(state)
        favourites = pinned(entries)
        if favourites and rng.random() < PINNED_SHARE:
            return Choice((rng.choice(favourites).id,), "parent")
        node = _tree(state, entries)
        while True:
            arms = [(_score(child.best, child.visits, node.visits), rng.random(), child) for child in node.children]
            if node.entry is not None:
                tried = 1 + len(node.children)
                arms.append((_score(node.reward, tried, node.visits), rng.random(), node))
            chosen = max(arms, key=lambda arm: arm[:2])[2]
            if chosen is node:
                return Choice((node.entry.id,), "siblings" if node.children else "parent")
            node = chosen


def _score(value: float, visits: int, total: int) -> float:
    return value + EXPLORATION * math.sqrt(math.log(total + 1) / visits)


def _tree(state: RunState, entries: tuple[Entry, ...]) -> _Node:
    """The tree of those that may be expanded; one whose parent may not be hangs below its nearest ancestor that may."""
    allowed = {entry.id: 1.0 - rank / len(entries) for rank, entry in enumerate(entries)}
    root = _Node(None, 0.0)
    above: dict[str, _Node] = {}
    for entry in state.entries.values():
        parent = next((above[p] for p in entry.candidate.parents if p in above), root)
        if entry.id in allowed:
            above[entry.id] = _Node(entry, allowed[entry.id])
            parent.children.append(above[entry.id])
        else:
            above[entry.id] = parent
    _count(root)
    return root


def _count(root: _Node) -> None:
    """Add up visits and the best reward from the leaves to the root; a loop, since lineages can be longer than the recursion limit."""
    order = [root]
    for node in order:
        order += node.children
    for node in reversed(order):
        node.visits = 1 + sum(child.visits for child in node.children)
        node.best = max([node.reward, *(child.best for child in node.children)])
