"""Closing programs: from a customer's totals to the verdict of a query, on a small stack machine.

All queries' programs lie one after the other, and one compiled loop decides every pair of a customer and a query that
is queued. Numbers are doubles; NaN is undefined; booleans are 0 and 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.insights.engine.cells import DIGITS, FIRST_DIGIT, LOWEST, NUMBER, ROUNDED, WIDE, Cells, find_cell
from services.kernel.aggregates.summing import add_double, round_digits, split_double
from services.kernel.jit import compiled, inlined


class Op(IntEnum):
    """What an instruction does with the stack."""

    CONSTANT = 0
    """Pushes `number`."""
    COUNT = 1
    """Pops `count` numbers; pushes how many of them are defined, and the count of the total if it is not -1."""
    SUM = 2
    """Pops `count` numbers; pushes their exact sum with that of the total, rounded once; undefined ones are skipped."""
    ADD = 3
    SUBTRACT = 4
    MULTIPLY = 5
    DIVIDE = 6
    NEGATE = 7
    ABSOLUTE = 8
    EQUAL = 9
    NOT_EQUAL = 10
    GREATER = 11
    GREATER_OR_EQUAL = 12
    LESS = 13
    LESS_OR_EQUAL = 14
    IN = 15
    """Pops `count` numbers and then one: whether it is among them."""
    AND = 16
    OR = 17
    NOT = 18


@dataclass(frozen=True, slots=True)
class Instruction:
    """One step of a program."""

    op: Op
    number: float = 0.0
    total: int = -1
    count: int = 0


class Programs(NamedTuple):
    """Programs as arrays, one entry for each instruction."""

    ops: NDArray[np.int32]
    numbers: NDArray[np.float64]
    totals: NDArray[np.int32]
    counts: NDArray[np.int32]
    starts: NDArray[np.int32]
    """By query: its first instruction; -1 when it has no program."""
    stops: NDArray[np.int32]
    stack: NDArray[np.float64]
    """Room for the deepest."""


FALSE, TRUE, FROM_ROWS = 0, 1, 2
"""Verdicts: FROM_ROWS when a total holds numbers that its digits cannot, or there is no program."""


class ProgramStore:
    """Programs that come and go: a new one is put behind the others, and what is gone is let go of now and then."""

    def __init__(self) -> None:
        self._programs: dict[int, Sequence[Instruction]] = {}
        self._used = 0
        self._living = 0
        self.programs = _empty(64, 8, 8)

    def put(self, slot: int, program: Sequence[Instruction] | None) -> None:
        """The program of a query; None takes it away."""
        self._living -= len(self._programs.pop(slot, ()))
        if slot < len(self.programs.starts):
            self.programs.starts[slot] = -1
        if program is None:
            # Whoever asks about a query without a program looks at its place all the same.
            if slot >= len(self.programs.starts):
                self._make_room(slot, 0)
            return
        self._programs[slot] = program
        self._living += len(program)
        made = self.programs
        if slot >= len(made.starts) or self._used + len(program) > len(made.ops) or len(program) >= len(made.stack):
            self._make_room(slot, len(program))
        else:
            self._append(slot, program)

    def _make_room(self, slot: int, length: int) -> None:
        slots = max(len(self.programs.starts), 2 * (slot + 1) if slot >= len(self.programs.starts) else 0)
        stack = max(len(self.programs.stack), 2 * length)
        self.programs, self._used = _empty(max(64, 2 * self._living), slots, stack), 0
        for each, program in self._programs.items():
            self._append(each, program)

    def _append(self, slot: int, program: Sequence[Instruction]) -> None:
        made, first = self.programs, self._used
        for at, each in enumerate(program, first):
            made.ops[at], made.numbers[at] = each.op, each.number
            made.totals[at], made.counts[at] = each.total, each.count
        self._used = first + len(program)
        made.starts[slot], made.stops[slot] = first, self._used


def _empty(instructions: int, slots: int, stack: int) -> Programs:
    return Programs(
        np.zeros(instructions, np.int32),
        np.zeros(instructions, np.float64),
        np.zeros(instructions, np.int32),
        np.zeros(instructions, np.int32),
        np.full(slots, -1, np.int32),
        np.zeros(slots, np.int32),
        np.zeros(stack, np.float64),
    )


SAME, ASKED = 0xFE, 0xFF
"""Instead of the state before: there is nothing to tell; the rows are to be asked."""


@compiled
def decide(
    programs: Programs,
    counts: Cells,
    sums: Cells,
    customers: NDArray[np.int32],
    queries: NDArray[np.int32],
    states: NDArray[np.uint8],
    before: NDArray[np.uint8],
    scratch: NDArray[np.int64],
    rounding: NDArray[np.int64],
) -> None:
    """Decides each pair that is in the queue; says of each what its state was before, or SAME, or ASKED.

    `scratch` has one row of DIGITS, `rounding` DIGITS + 1 entries.
    """
    for i in range(len(customers)):
        who, query = customers[i], queries[i]
        start = programs.starts[query]
        state = states[who, query] & 0x7F
        verdict = FROM_ROWS
        if start >= 0:
            verdict = run_program(programs, start, programs.stops[query], counts, sums, who, scratch, rounding)
        if verdict == FROM_ROWS:
            states[who, query] = state
            before[i] = ASKED
            continue
        after = 2 if verdict == TRUE else 1
        states[who, query] = after
        # Of a customer that was not known before nothing was said, and nothing need be said while it does not apply.
        before[i] = SAME if state == after or (state == 0 and after == 1) else state


@inlined
def run_program(
    programs: Programs,
    start: int,
    stop: int,
    counts: Cells,
    sums: Cells,
    customer: int,
    scratch: NDArray[np.int64],
    rounding: NDArray[np.int64],
) -> int:
    stack = programs.stack
    top = -1
    for at in range(start, stop):
        op = programs.ops[at]
        if op == 0:
            top += 1
            stack[top] = programs.numbers[at]
        elif op == 1:
            found = 0.0
            for _ in range(programs.counts[at]):
                found += 0.0 if np.isnan(stack[top]) else 1.0
                top -= 1
            if programs.totals[at] >= 0:
                cell = find_cell(counts, programs.totals[at], customer)
                if cell >= 0:
                    found += counts.rows[cell, NUMBER]
            top += 1
            stack[top] = found
        elif op == 2:
            cell = find_cell(sums, programs.totals[at], customer) if programs.totals[at] >= 0 else -1
            if cell >= 0 and sums.rows[cell, WIDE] != 0:
                return FROM_ROWS
            alone = cell >= 0 and programs.counts[at] == 0
            if alone:
                known = np.int64(sums.rows[cell, ROUNDED]).view(np.float64)
                if not np.isnan(known):
                    top += 1
                    stack[top] = known
                    continue
            for d in range(DIGITS):
                scratch[0, d] = sums.rows[cell, FIRST_DIGIT + d] if cell >= 0 else 0
            for _ in range(programs.counts[at]):
                value = stack[top]
                top -= 1
                if not np.isnan(value):
                    bits = int(np.float64(value).view(np.int64))
                    mantissa, digit, _shift = split_double(bits)
                    if mantissa != 0:
                        if digit < LOWEST or digit + 3 > LOWEST + DIGITS:
                            return FROM_ROWS
                        add_double(scratch, 0, LOWEST, bits, 1)
            top += 1
            stack[top] = round_digits(scratch, 0, LOWEST, rounding)
            if alone:
                sums.rows[cell, ROUNDED] = np.float64(stack[top]).view(np.int64)
        elif op == 7:
            stack[top] = -stack[top]
        elif op == 8:
            stack[top] = abs(stack[top])
        elif op == 18:
            stack[top] = 1.0 - stack[top]
        elif op == 15:
            size = programs.counts[at]
            value = stack[top - size]
            found = 0.0
            for j in range(size):
                if stack[top - j] == value:
                    found = 1.0
            top -= size
            stack[top] = found
        else:
            top -= 1
            stack[top] = _binary(op, stack[top], stack[top + 1])
    return TRUE if stack[0] == 1.0 else FALSE


@inlined
def _binary(op: int, x: float, y: float) -> float:
    if op <= 6:
        if op == 3:
            z = x + y
        elif op == 4:
            z = x - y
        elif op == 5:
            z = x * y
        elif y == 0.0:
            z = np.nan
        else:
            z = x / y
        return z if np.isfinite(z) else np.nan
    holds = False
    if op == 9:
        holds = x == y
    elif op == 10:
        # With an undefined side neither is less.
        holds = x < y or x > y
    elif op == 11:
        holds = x > y
    elif op == 12:
        holds = x >= y
    elif op == 13:
        holds = x < y
    elif op == 14:
        holds = x <= y
    elif op == 16:
        holds = x == 1.0 and y == 1.0
    elif op == 17:
        holds = x == 1.0 or y == 1.0
    return 1.0 if holds else 0.0
