"""Virtual memory management by ctypes: random programs against a reference, and the errors that the driver gives."""
import ctypes as c
import os
import random
from leaving import away
from vmm import (DEVICE, GRANULE, MIB, REF, Place, Property, create, give_access, ok, own, place, read, release, reserve, size, u64,
                 unmap, write)

# What a program asks before.
for attribute, expected in ((102, 1), (103, 1), (104, 0), (128, 0)):
    value = c.c_int(-1)
    ok(own.cuDeviceGetAttribute(REF(value), attribute, 0))
    assert value.value == expected, (attribute, value.value)
granularity = size()
for option in (0, 1):
    ok(own.cuMemGetAllocationGranularity(REF(granularity), REF(DEVICE), option))
    assert granularity.value == GRANULE
assert own.cuMemGetAllocationGranularity(REF(granularity), REF(DEVICE), 2) == 1

# Reservations cost nothing: several times the device's memory.
free, total = size(), size()
ok(own.cuMemGetInfo_v2(REF(free), REF(total)))
wide = [ok(reserve(total.value // GRANULE * GRANULE * 9 // 8 // GRANULE * GRANULE)) for _ in range(8)]
assert reserve(0)[0] == 1 and reserve(GRANULE + 1)[0] == 1 and reserve(GRANULE, alignment=3 * MIB)[0] == 1
aligned = ok(reserve(GRANULE, alignment=1 << 30))
assert aligned % (1 << 30) == 0
assert reserve(1 << 46)[0] == 2
assert own.cuMemAddressFree(u64(aligned), size(2 * GRANULE)) == 1
ok(own.cuMemAddressFree(u64(aligned), size(GRANULE)))
assert own.cuMemAddressFree(u64(aligned), size(GRANULE)) == 1
assert ok(reserve(GRANULE, wanted=aligned)) == aligned, "free addresses that are asked for are given"
assert own.cuMemFree_v2(u64(aligned)) == 1, "no allocation"

# Objects: errors, and what is told of them.
assert create(GRANULE - 1)[0] == 1 and create(0)[0] == 1
assert create(GRANULE, Property(type=7, place=1))[0] == 1
assert create(GRANULE, Property(type=1, place=1, device=1))[0] == 101
assert create((total.value // GRANULE + 1) * GRANULE)[0] == 2
handle = ok(create(2 * GRANULE))
told = Property()
ok(own.cuMemGetAllocationPropertiesFromHandle(REF(told), u64(handle)))
assert (told.type, told.handles, told.place, told.device) == (1, 1, 1, 0)
left = size()
ok(own.cuMemGetInfo_v2(REF(left), REF(total)))
assert left.value == free.value - 2 * GRANULE
base = wide[0]
assert place(base, GRANULE, handle) == 1 and place(base, 2 * GRANULE, handle, offset=GRANULE) == 1
assert place(base + 1, 2 * GRANULE, handle) == 1 and place(0x1000, 2 * GRANULE, handle) == 1
assert give_access(base, 2 * GRANULE) == 1, "nothing is mapped"
assert own.cuMemcpyDtoH_v2((c.c_uint32 * 1)(), u64(base), size(4)) == 1
ok(place(base, 2 * GRANULE, handle))
assert place(base, 2 * GRANULE, handle) == 1 and place(base + GRANULE, 2 * GRANULE, handle) == 1
ok(give_access(base, 2 * GRANULE))
assert give_access(base, GRANULE) == 1 and give_access(base, 2 * GRANULE, flags=2) == 1
assert give_access(base, 2 * GRANULE, device=1) == 101
flags = u64()
ok(own.cuMemGetAccess(REF(flags), REF(Place(1, 0)), u64(base + 5)))
assert flags.value == 3
assert read(base, 4) == [0] * 4 and read(base + 2 * GRANULE - 16, 4) == [0] * 4
# Another view of the same.
ok(place(base + 8 * GRANULE, 2 * GRANULE, handle))
ok(give_access(base + 8 * GRANULE, 2 * GRANULE))
write(base + GRANULE, [1, 2, 3])
assert read(base + 9 * GRANULE, 3) == [1, 2, 3]
start, length = u64(), size()
ok(own.cuMemGetAddressRange_v2(REF(start), REF(length), u64(base + 9 * GRANULE)))
assert (start.value, length.value) == (base + 8 * GRANULE, 2 * GRANULE)
# As a descriptor, and by an address.
descriptor, imported, retained = c.c_int(-1), u64(), u64()
ok(own.cuMemExportToShareableHandle(REF(descriptor), u64(handle), 1, u64(0)))
ok(own.cuMemImportFromShareableHandle(REF(imported), c.c_void_p(descriptor.value), 1))
os.close(descriptor.value)
ok(own.cuMemRetainAllocationHandle(REF(retained), u64(base + 12345)))
assert own.cuMemRetainAllocationHandle(REF(retained), u64(base + 4 * GRANULE)) == 1
assert own.cuMemImportFromShareableHandle(REF(imported), c.c_void_p(os.open("/dev/zero", os.O_RDONLY)), 1) != 0
for _ in range(3):
    ok(release(handle))
assert release(handle) == 1
assert own.cuMemAddressFree(u64(base), size(1)) == 1
away()
assert unmap(base, GRANULE) == 1 and unmap(base, 4 * GRANULE) == 1
ok(unmap(base, 2 * GRANULE))
assert read(base + 9 * GRANULE, 3) == [1, 2, 3], "what is mapped elsewhere stays"
ok(unmap(base + 8 * GRANULE, 2 * GRANULE))
ok(own.cuMemGetInfo_v2(REF(left), REF(total)))
assert left.value == free.value, "it ended with its last view"

# Asleep and awake again: objects end and others take their places, under a graph that names the addresses.
stream, graph, ready = c.c_void_p(), c.c_void_p(), c.c_void_p()
ok(own.cuStreamCreate(REF(stream), 1))
one, other = base, base + 16 * GRANULE


def wake():
    for address in (one, other):
        handle = ok(create(2 * GRANULE))
        ok(place(address, 2 * GRANULE, handle))
        ok(give_access(address, 2 * GRANULE))
        ok(release(handle))


wake()
ok(own.cuStreamBeginCapture_v2(stream, 0))
ok(own.cuMemcpyDtoDAsync_v2(u64(other), u64(one), size(2 * GRANULE), stream))
ok(own.cuMemsetD32Async(u64(one + GRANULE), c.c_uint(7), size(100), stream))
ok(own.cuStreamEndCapture(stream, REF(graph)))
ok(own.cuGraphInstantiateWithFlags(REF(ready), graph, u64(0)))
for step in range(20):
    write(one + GRANULE, [step, 5])
    ok(own.cuGraphLaunch(ready, stream))
    ok(own.cuStreamSynchronize(stream))
    assert read(other + GRANULE, 3) == [step, 5, 0] and read(one + GRANULE + 396, 2) == [7, 0]
    for address in (one, other):
        ok(unmap(address, 2 * GRANULE))
    ok(own.cuMemGetInfo_v2(REF(left), REF(total)))
    assert left.value == free.value, "asleep it has nothing"
    if step % 5 == 0:
        away()
    wake()
    assert read(other + GRANULE, 2) == [0, 0]
for address in (one, other):
    ok(unmap(address, 2 * GRANULE))

# Random programs.
for seed in range(6):
    dice = random.Random(seed)
    objects, views = {}, {}  # handle: one word of each granule; address: handle
    for step in range(80):
        kind = dice.random()
        if kind < 0.2 and sum(len(words) for words in objects.values()) < 24:
            granules = dice.randint(1, 4)
            objects[ok(create(granules * GRANULE))] = [0] * granules
        elif kind < 0.45 and objects:
            handle = dice.choice(list(objects))
            bytes = len(objects[handle]) * GRANULE
            address = base + dice.randrange(64) * GRANULE
            taken = any(address < at + len(objects[h]) * GRANULE and at < address + bytes for at, h in views.items())
            assert place(address, bytes, handle) == (1 if taken else 0)
            if not taken:
                ok(give_access(address, bytes))
                views[address] = handle
        elif kind < 0.6 and views:
            address = dice.choice(list(views))
            ok(unmap(address, len(objects[views.pop(address)]) * GRANULE))
        elif kind < 0.65 and set(objects) - set(views.values()):
            handle = dice.choice(sorted(set(objects) - set(views.values())))
            ok(release(handle))
            del objects[handle]
        elif kind < 0.95 and views:
            address, handle = dice.choice(list(views.items()))
            at = dice.randrange(len(objects[handle]))
            assert read(address + at * GRANULE + 400, 1) == [objects[handle][at]], (seed, step)
            objects[handle][at] = dice.getrandbits(32)
            write(address + at * GRANULE + 400, [objects[handle][at]])
        elif step % 10 == 0:
            away()
        # Copies go over the border between two views.
        for address, handle in views.items():
            end = address + len(objects[handle]) * GRANULE
            if end in views and dice.random() < 0.2:
                before, after = objects[handle][-1], objects[views[end]][0]
                words = read(end - GRANULE, GRANULE // 4 + 101)
                assert (words[100], words[-1]) == (before, after), (seed, step)
    for address, handle in views.items():
        ok(unmap(address, len(objects[handle]) * GRANULE))
    for handle in objects:
        ok(release(handle))
ok(own.cuMemGetInfo_v2(REF(left), REF(total)))
assert left.value == free.value
for address in wide:
    ok(own.cuMemAddressFree(u64(address), size(total.value // GRANULE * GRANULE * 9 // 8 // GRANULE * GRANULE)))
print("virtual memory passed")
