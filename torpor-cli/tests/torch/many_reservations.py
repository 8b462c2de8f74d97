"""More reservations than a process has addresses: each is used a little, and then some as far as there is memory."""
from leaving import away
from vmm import GRANULE, MIB, REF, create, give_access, ok, own, place, read, release, reserve, size, u64, unmap, write

free, total = size(), size()
ok(own.cuMemGetInfo_v2(REF(free), REF(total)))
WIDE = total.value // GRANULE * 9 // 8 * GRANULE
OUT_OF_MEMORY = 2


def use(address):
    """Maps a granule of new memory."""
    handle = ok(create(GRANULE))
    error = place(address, GRANULE, handle)
    if error:
        ok(release(handle))
        return error
    ok(give_access(address, GRANULE))
    ok(release(handle))
    return 0


# As allocators do with a pool for each stream: what all of them ask for is many times what there is.
pools = [ok(reserve(WIDE)) for _ in range(150)]
assert len(set(pools)) == len(pools)
for number, pool in enumerate(pools):
    ok(use(pool))
    write(pool, [number, ~number & 0xffffffff])
away()
for number, pool in enumerate(pools):
    assert read(pool, 2) == [number, ~number & 0xffffffff], number

# Ordinary memory finds addresses, too.
plain = u64()
ok(own.cuMemAlloc_v2(REF(plain), size(64 * MIB)))
write(plain.value, [7])

# Some grow by turns. What is left of the promise is no memory, or somebody's: an error that allocators expect.
grown = {pool: 1 for pool in pools[::30]}
for step in range(1, 24):
    for pool in grown:
        if grown[pool] == step:
            error = use(pool + step * GRANULE)
            assert error in (0, OUT_OF_MEMORY), error
            if not error:
                write(pool + step * GRANULE, [step, pool & 0xffffffff])
                grown[pool] += 1
assert max(grown.values()) == 24, grown
away()
for number, pool in enumerate(pools):
    assert read(pool, 2) == [number, ~number & 0xffffffff], number
for pool, length in grown.items():
    for step in range(1, length):
        assert read(pool + step * GRANULE, 2) == [step, pool & 0xffffffff]
assert read(plain.value, 1) == [7]

for pool in pools:
    for step in range(grown.get(pool, 1)):
        ok(unmap(pool + step * GRANULE, GRANULE))
    ok(own.cuMemAddressFree(u64(pool), size(WIDE)))
ok(own.cuMemFree_v2(plain))
left = size()
ok(own.cuMemGetInfo_v2(REF(left), REF(total)))
assert left.value == free.value, (left.value, free.value)
ok(own.cuMemAddressFree(u64(ok(reserve(8 * WIDE))), size(8 * WIDE)))
print("many_reservations passed")
