"""TensorFlow checkpoint bundles written in the plainest way, also broken ones whose checksums are nonetheless right."""

import struct

import numpy as np

TYPES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "float16": 19}


def crc(data):
    """CRC-32C bit by bit."""
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


def masked(data):
    value = crc(data)
    return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def varint(number):
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def field(number, value):
    """A varint, a fixed32 given as its four bytes in a tuple, or a string."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, tuple):
        return varint(number << 3 | 5) + value[0]
    return varint(number << 3 | 2) + varint(len(value)) + value


def entry(array, place, **other):
    """BundleEntryProto of an array; ``other`` replaces what it says."""
    content = array.tobytes()
    shape = other.get("shape", array.shape)
    dims = b"".join(field(2, field(1, size % (1 << 64))) for size in shape)
    return (
        field(1, other.get("dtype", TYPES[array.dtype.name]))
        + field(2, dims)
        + field(3, other.get("shard", 0))
        + field(4, other.get("offset", place))
        + field(5, other.get("size", len(content)))
        + field(6, (masked(content),))
        + other.get("more", b"")
    )


def block(items, restart=16):
    """Keys and values of a block, prefixes shared except at restarts."""
    out, starts, last = b"", [], b""
    for place, (key, value) in enumerate(items):
        shared = 0
        if place % restart == 0:
            starts.append(len(out))
        else:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    starts = starts or [0]
    return out + struct.pack(f"<{len(starts) + 1}I", *starts, len(starts))


def sealed(content, kind=0):
    """A block with its trailer."""
    return content + bytes([kind]) + masked(content + bytes([kind]))


def table(blocks, kind=0, twice=False):
    """A whole index of blocks given as bytes; ``twice`` names the first one again at the end."""
    out, handles = b"", []
    for content in blocks:
        handles.append(varint(len(out)) + varint(len(content)))
        out += sealed(content, kind)
    handles += handles[:1] if twice else []
    meta = varint(len(out)) + varint(8)
    out += sealed(block([]))
    top = block([(b"%04d" % place, handle) for place, handle in enumerate(handles)])
    footer = meta + varint(len(out)) + varint(len(top))
    return out + sealed(top) + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


HEADER = (b"", field(1, 1) + field(3, field(1, 1)))


def bundle(tensors, per_block=3, header=HEADER, **changes):
    """(index, data) of {name: array}; ``changes`` {name: {field: value}} falsify entries."""
    items, data = [header], b""
    for name in sorted(tensors):
        array = np.asarray(tensors[name])
        items.append((name.encode(), entry(array, len(data), **changes.get(name, {}))))
        data += array.tobytes()
    blocks = [block(items[place : place + per_block], restart=2) for place in range(0, len(items), per_block)]
    return table(blocks), data
