"""A CPU that runs what PTX the Hopper kernel compiles to: all threads of all blocks at once, in NumPy.

It knows the instructions that the kernel uses and stops at any other. All threads take each step together, so a
missing barrier does not show here.
"""

import dataclasses
import re

import numpy as np

THREADS, WARP, BANKS = 128, 32, 32
_BASE = 1 << 40  # addresses of the parameters: far apart, so that each says whose it is
_APART = 1 << 36
_UNWRITTEN = 0xDEADBEEF

_ARITHMETIC = {
    "add.s32": lambda x, y: x + y,
    "sub.s32": lambda x, y: x - y,
    "mul.lo.s32": lambda x, y: x * y,
    "mad.lo.s32": lambda x, y, z: x * y + z,
    "min.s32": lambda x, y: np.minimum(x.view(np.int32), y.view(np.int32)).view(np.uint32),
    "max.s32": lambda x, y: np.maximum(x.view(np.int32), y.view(np.int32)).view(np.uint32),
    "abs.s32": lambda x: np.abs(x.view(np.int32)).view(np.uint32),
    "neg.s32": lambda x: np.uint32(0) - x,
    "and.b32": lambda x, y: x & y,
    "or.b32": lambda x, y: x | y,
    "xor.b32": lambda x, y: x ^ y,
    "shl.b32": lambda x, y: x << y,
    "shr.u32": lambda x, y: x >> y,
    "bfe.u32": lambda x, start, length: (x >> start) & ((np.uint32(1) << length) - np.uint32(1)),
    "shf.l.wrap.b32": lambda low, high, by: (
        (high << (by & 31)) | (low.astype(np.uint64) >> (32 - (by & 31))).astype(low.dtype)
    ),
    "mov.b32": lambda x: x,
    "mov.u32": lambda x: x,
    "cvt.u64.u32": lambda x: x.astype(np.uint64),
    "mul.wide.u32": lambda x, y: x.astype(np.uint64) * y.astype(np.uint64),
}
_WIDE = {
    "add.s64": lambda x, y: x + y,
    "or.b64": lambda x, y: x | y,
    "shl.b64": lambda x, y: x << y.astype(np.uint64),
    "mov.b64": lambda x: x,
}
_COMPARE = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}


@dataclasses.dataclass
class Counts:
    """Steps taken, accesses of a warp to shared memory in block 0, and the turns its banks needed for them."""

    steps: int = 0
    accesses: int = 0
    turns: int = 0


def run(ptx: str, parameters: list[np.ndarray], blocks: int, shared_words: int = 58_000) -> Counts:
    """Run the one kernel in `ptx` on `blocks` blocks of 128 threads; contiguous 32-bit arrays are read and written."""
    memories = [array.reshape(-1).view(np.uint32) for array in parameters]
    shared = np.full((blocks, shared_words), _UNWRITTEN, np.uint32)
    block = np.repeat(np.arange(blocks), THREADS)
    thread = np.tile(np.arange(THREADS, dtype=np.uint32), blocks)
    registers: dict[str, np.ndarray] = {"%tid.x": thread, "%ctaid.x": block.astype(np.uint32)}
    counts = Counts()
    program, labels = _parse(ptx)

    def value(text: str, dtype: type = np.uint32) -> np.ndarray:
        if text.startswith("%"):
            return registers[text]
        number = 0 if text.startswith("__dynamic_shmem") else int(text, 0)
        return np.full(len(thread), number % (1 << 8 * np.dtype(dtype).itemsize), dtype)

    def address(text: str) -> np.ndarray:
        start, _, offset = text.strip("[]").partition("+")
        return (value(start, np.uint64) + value(offset or "0", np.uint64)).astype(np.int64)

    def device_memory(text: str) -> tuple[np.ndarray, np.ndarray]:
        which, offset = np.divmod(address(text) - _BASE, _APART)
        assert (which == which[0]).all() and (offset % 4 == 0).all(), text
        return memories[which[0]], offset // 4

    def shared_memory(text: str) -> np.ndarray:
        word, rest = np.divmod(address(text), 4)
        assert not rest.any() and word.min() >= 0, text
        for warp in word[:THREADS].reshape(-1, WARP):
            counts.accesses += 1
            counts.turns += np.bincount(np.unique(warp) % BANKS).max()
        return word

    place = 0
    while place < len(program):
        predicate, name, operands = program[place]
        place += 1
        counts.steps += 1
        if name == "ret":
            break
        if name == "bra":
            taken = registers[predicate] if predicate else np.ones(1, bool)
            assert taken.all() or not taken.any(), "threads part ways"
            place = labels[operands[0]] if taken.all() else place
            continue
        assert not predicate, name
        into, *given = operands or [""]
        if name.startswith(("fence.", "bar.sync")):
            continue
        if name in _ARITHMETIC:
            registers[into] = _ARITHMETIC[name](*map(value, given))
        elif name in _WIDE:
            registers[into] = _WIDE[name](*(value(text, np.uint64) for text in given))
        elif name.startswith("setp."):
            _, how, kind = name.split(".")
            dtype = {"s32": np.int32, "u32": np.uint32, "b32": np.uint32}[kind]
            registers[into] = _COMPARE[how](*(value(text).view(dtype) for text in given))
        elif name == "mov.pred":
            registers[into] = value(given[0]).astype(bool)
        elif name == "selp.b32":
            registers[into] = np.where(registers[given[2]], value(given[0]), value(given[1]))
        elif name == "elect.sync":
            number, elected = into.split("|")
            registers[number], registers[elected] = value("0"), thread % WARP == 0
        elif name.startswith("ld.param"):
            which = int(given[0].strip("[]").rpartition("_")[2])
            registers[into] = value(str(_BASE + which * _APART), np.uint64)
        elif name == "shfl.sync.bfly.b32":
            registers[into] = value(given[0]).reshape(-1, WARP)[:, np.arange(WARP) ^ int(given[1])].reshape(-1)
        elif name == "shfl.sync.idx.b32":
            registers[into] = np.repeat(value(given[0]).reshape(-1, WARP)[:, int(given[1])], WARP)
        elif name in ("redux.sync.min.s32", "redux.sync.max.s32"):
            reduce = np.min if "min" in name else np.max
            registers[into] = np.repeat(reduce(value(given[0]).view(np.int32).reshape(-1, WARP), 1), WARP).view(
                np.uint32
            )
        elif name in ("ld.b32", "ld.global.b32"):
            memory, word = device_memory(given[0])
            registers[into] = memory[word]
        elif name in ("st.b32", "st.global.b32"):
            memory, word = device_memory(into)
            memory[word] = value(given[0])
        elif name == "ld.shared.b32":
            registers[into] = shared[block, shared_memory(given[0])]
        elif name == "st.shared.b32":
            shared[block, shared_memory(into)] = value(given[0])
        else:
            raise NotImplementedError(name)
    return counts


def _parse(ptx: str) -> tuple[list[tuple[str, str, list[str]]], dict[str, int]]:
    """Instructions (predicate, name, operands) and the places of labels."""
    program: list[tuple[str, str, list[str]]] = []
    labels = {}
    for line in ptx[ptx.index("{") + 1 : ptx.rindex("ret;") + 4].splitlines():
        line = line.partition("//")[0].strip().rstrip(";")
        if label := re.match(r"(\$\w+):", line):
            labels[label[1]] = len(program)
        elif line and not line.startswith("."):
            predicate, name, operands = re.match(r"(?:@(%p\d+)\s+)?(\S+)\s*(.*)", line).groups()
            program.append((predicate or "", name, re.split(r",\s*", operands) if operands else []))
    return program, labels
