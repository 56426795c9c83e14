"""Takes away the texts that nothing refers to any more, after a key was forgotten."""

import numpy as np

from services.kernel.aggregations import TermType
from services.kernel.registry import Registry


def forget_unused_texts(registry: Registry) -> None:
    """Leaves of the interned texts of terms those that a row or a state still holds."""
    strings, store = registry.memory.strings, registry.memory.store
    unused = np.ones(len(strings), np.bool_)
    for stream in registry.streams:
        term, bit = registry.term_index(stream), registry.bit(stream)
        if term is not None and stream.term_type is TermType.STRING:
            rows = np.flatnonzero(store.columns.flags[: store.count, bit.word] & bit.mask)
            unused[store.terms[term][rows]] = False
    for state in registry.states:
        texts = state.texts()
        if texts is not None:
            unused[texts] = False
    strings.forget(unused)
