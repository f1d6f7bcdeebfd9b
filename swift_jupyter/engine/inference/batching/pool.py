"""Where keys and values of all running answers are kept: one slot for each."""

from __future__ import annotations

from typing import Any

_BLOCK = 64


class KeyValuePool:
    """Keys and values by layer, slot and position.

    Tensors have the shape [slots, capacity, heads, width], so that the tokens of a step,
    whichever slots they belong to, are written by one operation per layer. They grow in
    blocks, not at every step.

    Attributes
    ----------
    slots, capacity : int
        How many sequences of which length there is room for.
    """

    def __init__(self) -> None:
        self.slots = 0
        self.capacity = 0
        self._keys: dict[int, Any] = {}
        self._values: dict[int, Any] = {}

    @property
    def token_bytes(self) -> int:
        """What one token takes over all layers; 0 before the first was written."""
        tensors = [*self._keys.values(), *self._values.values()]
        return sum(t.shape[2] * t.shape[3] * t.element_size() for t in tensors)

    @property
    def total_bytes(self) -> int:
        """What is allocated."""
        return self.token_bytes * self.slots * self.capacity

    def write(self, layer: int, places: Any, keys: Any, values: Any) -> None:
        """Store the tokens of a step.

        Parameters
        ----------
        layer : int
            Which layer.
        places : Tensor, shape [tokens]
            ``slot * capacity + position`` of each.
        keys, values : Tensor, shape [tokens, heads, width]
            What is stored.
        """
        if layer not in self._keys:
            self._keys[layer] = self._new(keys)
            self._values[layer] = self._new(values)
        self._keys[layer].view(-1, *keys.shape[1:]).index_copy_(0, places, keys)
        self._values[layer].view(-1, *values.shape[1:]).index_copy_(0, places, values)

    def read(self, layer: int, first: int, last: int, length: int) -> tuple[Any, Any]:
        """Return views on slots ``first:last``, each of shape [slots, heads, length, width]."""
        keys = self._keys[layer][first:last, :length].transpose(1, 2)
        values = self._values[layer][first:last, :length].transpose(1, 2)
        return keys, values

    def reserve(self, slots: int, capacity: int, limit: int | None = None) -> None:
        """Make room; what is stored in the slots and positions that are needed stays.

        Parameters
        ----------
        slots, capacity : int
            What is needed.
        limit : int, optional
            Bytes up to which room is made in advance, and kept when it is not needed.
        """
        if slots <= self.slots and capacity <= self.capacity:
            return
        exact = slots, _blocks(capacity)
        kept = max(slots, self.slots), max(exact[1], self.capacity)
        ahead = (
            max(kept[0], 2 * self.slots) if slots > self.slots else kept[0],
            max(kept[1], _blocks(self.capacity * 5 // 4)) if capacity > self.capacity else kept[1],
        )
        fits = [
            size
            for size in (ahead, kept)
            if limit is None or size[0] * size[1] * self.token_bytes <= limit
        ]
        self._resize(*(fits[0] if fits else exact))

    def _resize(self, slots: int, capacity: int) -> None:
        used = min(slots, self.slots), min(capacity, self.capacity)
        for tensors in (self._keys, self._values):
            for layer, old in tensors.items():
                new = old.new_zeros((slots, capacity, *old.shape[2:]))
                new[: used[0], : used[1]] = old[: used[0], : used[1]]
                tensors[layer] = new
        self.slots, self.capacity = slots, capacity

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of one slot to another."""
        for tensors in (self._keys, self._values):
            for tensor in tensors.values():
                tensor[target, :length] = tensor[source, :length]

    def take(self, slot: int, length: int) -> list[Any]:
        """Return a copy of the first `length` tokens of a slot."""
        return [
            tensors[layer][slot, :length].clone()
            for tensors in (self._keys, self._values)
            for layer in sorted(tensors)
        ]

    def put(self, slot: int, length: int, taken: list[Any]) -> None:
        """Store the first `length` tokens of what `take` returned."""
        layers = [
            tensors[layer] for tensors in (self._keys, self._values) for layer in sorted(tensors)
        ]
        for tensor, content in zip(layers, taken, strict=True):
            tensor[slot, :length] = content[:length]

    def learn(self, other: KeyValuePool) -> None:
        """Take over the shapes of the layers from another pool, when none are known yet."""
        for own, tensors in ((self._keys, other._keys), (self._values, other._values)):
            for layer, example in tensors.items():
                if layer not in own:
                    own[layer] = example.new_zeros((self.slots, self.capacity, *example.shape[2:]))

    def release(self) -> None:
        """Free all memory; the shapes of the layers are kept for `token_bytes`."""
        self.slots = self.capacity = 0
        for tensors in (self._keys, self._values):
            for layer, old in tensors.items():
                tensors[layer] = old.new_zeros((0, 0, *old.shape[2:]))

    def _new(self, example: Any) -> Any:
        return example.new_zeros((self.slots, self.capacity, *example.shape[1:]))


def size_bytes(slots: int, length: int, token_bytes: int) -> int:
    """Return what a pool takes at least."""
    return slots * _blocks(length) * token_bytes


def _blocks(length: int) -> int:
    return -(-length // _BLOCK) * _BLOCK
