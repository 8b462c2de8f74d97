"""A kernel that Triton compiles: it adds 7."""
import triton
import triton.language as tl

BLOCK_ELEMENTS = 1024


@triton.jit
def add_seven(data, count, BLOCK: tl.constexpr):
    places = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = places < count
    tl.store(data + places, tl.load(data + places, mask=inside) + 7.0, mask=inside)


def launch(data):
    add_seven[(triton.cdiv(data.numel(), BLOCK_ELEMENTS),)](data, data.numel(), BLOCK=BLOCK_ELEMENTS)
