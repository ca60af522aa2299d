"""The loops of a function in machine code: basic blocks from jumps, back edges by depth-first search, natural loops from them."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Instruction:
    """One line of a disassembly; `goal` is the address that a jump names (-1: none), `symbol` what a jump or call names."""

    address: int
    mnemonic: str
    operands: str
    symbol: str = ""
    goal: int = -1

    @property
    def ends_block(self) -> bool:
        return self.mnemonic.startswith(("j", "ret", "ud2", "hlt"))

    @property
    def falls_through(self) -> bool:
        return not self.mnemonic.startswith(("jmp", "ret", "ud2", "hlt"))


def innermost_loops(body: Sequence[Instruction]) -> list[tuple[Instruction, ...]]:
    """The loops of a function that contain no other loop, each as its instructions in order of address."""
    loops = [(header, blocks) for header, blocks in _natural_loops(_blocks(body)) if blocks]
    inner = [blocks for header, blocks in loops if not any(other in blocks for other, _ in loops if other != header)]
    return [tuple(_in_order(body, blocks)) for blocks in inner]


def in_loops(body: Sequence[Instruction]) -> list[Instruction]:
    """The instructions of a function that are in any loop."""
    blocks = {block for _, loop in _natural_loops(_blocks(body)) for block in loop}
    return _in_order(body, blocks)


def depths(body: Sequence[Instruction]) -> dict[int, int]:
    """By address, in how many loops of its function each instruction is."""
    found = dict.fromkeys((instruction.address for instruction in body), 0)
    for _, loop in _natural_loops(_blocks(body)):
        for instruction in _in_order(body, loop):
            found[instruction.address] += 1
    return found


def _in_order(body: Sequence[Instruction], blocks: set["Block"]) -> list[Instruction]:
    return [body[i] for block in sorted(blocks, key=lambda block: block.start) for i in block]


Block = range
Graph = dict[Block, list[Block]]


def _blocks(body: Sequence[Instruction]) -> Graph:
    """The basic blocks, as ranges of positions, with their successors inside the function; the first is the entry."""
    if not body:
        return {}
    position = {instruction.address: i for i, instruction in enumerate(body)}
    starts = {0} | {position[i.goal] for i in body if i.goal in position} | {i + 1 for i, ins in enumerate(body) if ins.ends_block}
    order = sorted(start for start in starts if start < len(body))
    blocks = {start: range(start, end) for start, end in zip(order, [*order[1:], len(body)], strict=True)}
    graph: Graph = {}
    for block in blocks.values():
        last = body[block[-1]]
        following = [position[last.goal]] if last.goal in position else []
        if last.falls_through and block.stop < len(body):
            following.append(block.stop)
        graph[block] = [blocks[start] for start in following]
    return graph


def _natural_loops(graph: Graph) -> list[tuple[Block, set[Block]]]:
    """Header and blocks of each loop; loops that share a header count as one."""
    loops: dict[Block, set[Block]] = {}
    before: dict[Block, list[Block]] = {block: [] for block in graph}
    for block, successors in graph.items():
        for successor in successors:
            before[successor].append(block)
    for tail, header in _back_edges(graph):
        found = loops.setdefault(header, {header})
        pending = [tail]
        while pending:
            block = pending.pop()
            if block not in found:
                found.add(block)
                pending += before[block]
    return list(loops.items())


def _back_edges(graph: Graph) -> list[tuple[Block, Block]]:
    """The edges to a block that is being visited: compiled code is reducible, so these are the edges that close a loop."""
    edges, active, visited = [], set(), set()
    for root in graph:
        if root in visited:
            continue
        visited.add(root)
        active.add(root)
        stack = [(root, iter(graph[root]))]
        while stack:
            block, successors = stack[-1]
            for successor in successors:
                if successor in active:
                    edges.append((block, successor))
                elif successor not in visited:
                    visited.add(successor)
                    active.add(successor)
                    stack.append((successor, iter(graph[successor])))
                    break
            else:
                active.discard(block)
                stack.pop()
    return edges
