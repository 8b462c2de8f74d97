"""The driver's linker by ctypes, and a program of two inputs that need each other, for the functions beside this file.

A kernel `advance` calls a function `scramble` of another input (scramble.cu, or the same as PTX), and each input has a variable.
"""

import ctypes

from driver_api import allocate, call, launch, made

# CUjitInputType
CUBIN, PTX, FATBIN, OBJECT, LIBRARY = range(5)

HEAD = b".version 7.0\n.target sm_75\n.address_size 64\n"

# Each element of `place` becomes `scramble` of itself, times a variable of this text.
KERNEL = HEAD + b"""
.extern .func (.param .b32 made) scramble(.param .b32 number);
.visible .global .align 4 .u32 factor = 3;
.visible .entry advance(.param .u64 place)
{
    .reg .b32 %r<5>;
    .reg .b64 %d<4>;
    ld.param.u64 %d1, [place];
    cvta.to.global.u64 %d1, %d1;
    mov.u32 %r1, %tid.x;
    mul.wide.u32 %d2, %r1, 4;
    add.s64 %d3, %d1, %d2;
    ld.global.u32 %r2, [%d3];
    {
    .param .b32 argument;
    st.param.b32 [argument], %r2;
    .param .b32 result;
    call.uni (result), scramble, (argument);
    ld.param.b32 %r3, [result];
    }
    ld.global.u32 %r4, [factor];
    mul.lo.u32 %r3, %r3, %r4;
    st.global.u32 [%d3], %r3;
    ret;
}
"""

# scramble.cu by hand.
SCRAMBLE = HEAD + b"""
.visible .global .align 4 .u32 calls = 100;
.visible .func (.param .b32 made) scramble(.param .b32 number)
{
    .reg .b32 %r<4>;
    ld.param.b32 %r1, [number];
    atom.global.add.u32 %r2, [calls], 1;
    mad.lo.u32 %r3, %r1, 1664525, 1013904223;
    st.param.b32 [made], %r3;
    ret;
}
"""


def link(*inputs):
    """What the driver's linker makes of inputs: each is a kind, and bytes or the path of a file."""
    state, image, size = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_size_t()
    call("cuLinkCreate_v2", 0, None, None, ctypes.byref(state))
    try:
        for kind, data in inputs:
            if isinstance(data, bytes):
                call("cuLinkAddData_v2", state, kind, data, ctypes.c_size_t(len(data)), b"input", 0, None, None)
            else:
                call("cuLinkAddFile_v2", state, kind, str(data).encode(), 0, None, None)
        call("cuLinkComplete", state, ctypes.byref(image), ctypes.byref(size))
        return ctypes.string_at(image, size.value)
    finally:
        call("cuLinkDestroy", state)


class Advancing:
    """The linked program on its way: numbers on the GPU, and what they have to be."""

    COUNT = 256

    def __init__(self, image):
        self.module = made("cuModuleLoadData", image)
        self.kernel = made("cuModuleGetFunction", self.module, b"advance")
        self.place = allocate(4 * self.COUNT)
        self.numbers, self.calls = [7 * number for number in range(self.COUNT)], 100
        self._write(self.place, self.numbers)

    def advance(self, factor):
        """One launch with this factor. Gives the numbers and both variables, which are right."""
        self._write(self._variable(b"factor"), [factor])
        launch(self.kernel, 1, self.COUNT, ctypes.c_uint64(self.place))
        self.numbers = [(number * 1664525 + 1013904223) * factor % (1 << 32) for number in self.numbers]
        self.calls += self.COUNT
        expected = [*self.numbers, factor, self.calls]
        addresses = ((self.place, self.COUNT), (self._variable(b"factor"), 1), (self._variable(b"calls"), 1))
        got = [word for address, count in addresses for word in self._read(address, count)]
        if got != expected:
            raise RuntimeError(f"{got[:4]}, {got[-2:]} instead of {expected[:4]}, {expected[-2:]}")
        return got

    def _variable(self, name):
        address, size = ctypes.c_uint64(), ctypes.c_size_t()
        call("cuModuleGetGlobal_v2", ctypes.byref(address), ctypes.byref(size), self.module, name)
        assert size.value == 4, name
        return address.value

    @staticmethod
    def _write(address, words):
        call("cuMemcpyHtoD_v2", ctypes.c_uint64(address), (ctypes.c_uint32 * len(words))(*words), ctypes.c_size_t(4 * len(words)))

    @staticmethod
    def _read(address, count):
        words = (ctypes.c_uint32 * count)()
        call("cuMemcpyDtoH_v2", words, ctypes.c_uint64(address), ctypes.c_size_t(4 * count))
        return list(words)
