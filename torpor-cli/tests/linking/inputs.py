"""The driver's linker as a program has it: one input, several, what cannot be linked, and the logs of all who compile."""
import ctypes as c
import os
import struct
import tempfile

CUBIN, PTX, OBJECT, LIBRARY, NVVM = 0, 1, 3, 4, 5
INVALID_VALUE, INVALID_IMAGE, INVALID_PTX, NO_FILE, INVALID_HANDLE, NOT_SUPPORTED, UNKNOWN = 1, 200, 218, 301, 400, 801, 999
MAX_REGISTERS, WALL_TIME, INFO_LOG, INFO_LOG_BYTES, ERROR_LOG, ERROR_LOG_BYTES, OPTIMIZATION_LEVEL = 0, 2, 3, 4, 5, 6, 7
REGISTERS = 4
HEAD = b".version 8.0\n.target sm_70\n.address_size 64\n"
# Stores 4 times `base`, with a function that another text has; then adds what its own variable holds.
FIRST = HEAD + b"""
.extern .global .u32 base;
.extern .func (.param .b32 out) twice(.param .b32 in);
.visible .global .u32 own = 2;
.visible .entry first(.param .u64 place) {
    .reg .u64 %a; .reg .u32 %x, %y;
    .param .b32 in; .param .b32 out;
    ld.param.u64 %a, [place]; cvta.to.global.u64 %a, %a;
    ld.global.u32 %x, [base]; add.u32 %x, %x, %x;
    st.param.b32 [in], %x; call (out), twice, (in); ld.param.b32 %x, [out];
    ld.global.u32 %y, [own]; add.u32 %x, %x, %y;
    st.global.u32 [%a], %x; ret;
}
"""
SECOND = HEAD + b"""
.visible .global .u32 base = 10;
.visible .func (.param .b32 out) twice(.param .b32 in) {
    .reg .u32 %x; ld.param.b32 %x, [in]; add.u32 %x, %x, %x; st.param.b32 [out], %x; ret;
}
.visible .entry second(.param .u64 place) {
    .reg .u64 %a; .reg .u32 %x; ld.param.u64 %a, [place]; cvta.to.global.u64 %a, %a; ld.global.u32 %x, [base];
    st.global.u32 [%a], %x; ret;
}
"""
THIRD = HEAD + b"""
.visible .entry third(.param .u64 place) {
    .reg .u64 %a; ld.param.u64 %a, [place]; cvta.to.global.u64 %a, %a; st.global.u32 [%a], 7; ret;
}
"""
BAD = HEAD + b".visible .entry bad() { foo.bar; }"
driver = c.CDLL("libcuda.so.1")


def check(code):
    assert code == 0, code


class Logs:
    """Options that ask for both logs, into memory that holds something."""

    def __init__(self, room=16):
        self.buffers = [c.create_string_buffer(b"x" * max(15, room - 1)) for _ in range(2)]
        self.options = (c.c_uint * 4)(INFO_LOG, ERROR_LOG_BYTES, INFO_LOG_BYTES, ERROR_LOG)
        info, error = map(c.addressof, self.buffers)
        self.values = (c.c_void_p * 4)(info, room, room, error)
        self.arguments = (4, self.options, self.values)

    def errors(self):
        """What is said of errors, whose length with its NUL is told."""
        said = self.buffers[1].value
        assert self.buffers[0].value == b"" and not self.values[2] and len(said) + 1 == self.values[1], (said, list(self.values))
        return said

    def are_empty(self):
        return [buffer.value for buffer in self.buffers] == [b"", b""] and not self.values[1] and not self.values[2]


def new_link(logs=None):
    made = c.c_void_p()
    check(driver.cuLinkCreate_v2(*(logs.arguments if logs else (0, None, None)), c.byref(made)))
    return made


def options(*chosen):
    """Arguments that choose options by their numbers."""
    numbers, values = zip(*chosen)
    return len(chosen), (c.c_uint * len(chosen))(*numbers), (c.c_void_p * len(chosen))(*values)


def container(text):
    """A fatbin container of a text for sm_70 and of nothing else."""
    text += b"\0" * (8 - len(text) % 8)
    entry = struct.pack("<10I3Q", 0x01010001, 64, len(text), 0, 0, 0, 0x00010000, 70, 0, 0, 0x11, 0, 0) + text
    return struct.pack("<2IQ", 0xBA55ED50, 0x00100001, len(entry)) + entry


def registers(module, name):
    function, value = c.c_void_p(), c.c_int()
    check(driver.cuModuleGetFunction(c.byref(function), module, name))
    check(driver.cuFuncGetAttribute(c.byref(value), REGISTERS, function))
    return value.value


def add(link, kind, data):
    return driver.cuLinkAddData_v2(link, kind, data, c.c_size_t(len(data)), b"name", 0, None, None)


def add_file(link, kind, path):
    return driver.cuLinkAddFile_v2(link, kind, path.encode(), 0, None, None)


def complete(link):
    image, length = c.c_void_p(), c.c_size_t()
    code = driver.cuLinkComplete(link, c.byref(image), c.byref(length))
    return code or c.string_at(image, length.value)


def linked(*inputs):
    link = new_link()
    for kind, data in inputs:
        check(add(link, kind, data))
    return complete(link)


def load(image):
    module = c.c_void_p()
    check(driver.cuModuleLoadData(c.byref(module), image))
    return module


def run(module, name):
    function, place, result = c.c_void_p(), c.c_uint64(), c.c_uint()
    check(driver.cuModuleGetFunction(c.byref(function), module, name))
    check(driver.cuMemAlloc_v2(c.byref(place), c.c_size_t(4)))
    check(driver.cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, None, (c.c_void_p * 1)(c.addressof(place)), None))
    check(driver.cuMemcpyDtoH_v2(c.byref(result), place, c.c_size_t(4)))
    return result.value


context = c.c_void_p()
check(driver.cuInit(0))
check(driver.cuDevicePrimaryCtxRetain(c.byref(context), 0))
check(driver.cuCtxSetCurrent(context))
folder = tempfile.TemporaryDirectory()
path = os.path.join(folder.name, "third.ptx")
with open(path, "wb") as file:
    file.write(THIRD)

# A text that cannot be compiled is no module, and another one is.
module = c.c_void_p()
assert driver.cuModuleLoadData(c.byref(module), BAD) == INVALID_PTX
assert run(load(THIRD), b"third") == 7
logs = Logs(200)
assert driver.cuModuleLoadFatBinary(c.byref(module), container(BAD)) == INVALID_PTX
assert driver.cuModuleLoadDataEx(c.byref(module), container(BAD), *logs.arguments) == INVALID_PTX and b"foo.bar" in logs.errors()
assert run(load(container(THIRD)), b"third") == 7

# One input.
assert linked((PTX, THIRD)) == THIRD + b"\0"
link = new_link()
assert complete(link) == INVALID_VALUE, "nothing was added"
check(add_file(link, PTX, path))
image = complete(link)
assert run(load(image), b"third") == 7
assert add(link, PTX, THIRD) == INVALID_VALUE, "it is complete"
assert complete(link) == image
check(driver.cuLinkDestroy(link))
assert driver.cuLinkDestroy(link) == INVALID_HANDLE

# Several, by each way to a module.
logs = Logs()
link = new_link(logs)
assert logs.are_empty()
check(add(link, PTX, FIRST))
check(add(link, PTX, SECOND + b"\0\0\0\0"))
check(add_file(link, PTX, path))
image = complete(link)
check(driver.cuLinkDestroy(link))
module = load(image)
assert [run(module, name) for name in (b"first", b"second", b"third")] == [42, 10, 7]
address, length = c.c_uint64(), c.c_size_t()
check(driver.cuModuleGetGlobal_v2(c.byref(address), c.byref(length), module, b"base"))
assert length.value == 4
check(driver.cuMemcpyHtoD_v2(address, c.byref(c.c_uint(20)), c.c_size_t(4)))
assert run(module, b"first") == 82
count = c.c_uint()
check(driver.cuModuleGetFunctionCount(c.byref(count), module))
assert count.value == 3
with open(os.path.join(folder.name, "linked.cubin"), "wb") as file:
    file.write(image)
check(driver.cuModuleLoad(c.byref(module), file.name.encode()))
assert run(module, b"second") == 10
logs, library, kernel = Logs(), c.c_void_p(), c.c_void_p()
check(driver.cuLibraryLoadData(c.byref(library), image, logs.options, logs.values, 4, None, None, 0))
assert logs.are_empty()
check(driver.cuLibraryGetKernel(c.byref(kernel), library, b"first"))

# What a link made, in another one.
again = linked((CUBIN, linked((PTX, FIRST), (PTX, SECOND))), (CUBIN, linked((PTX, THIRD))))
assert [run(load(again), name) for name in (b"first", b"second", b"third")] == [42, 10, 7]

# What cannot be linked.
assert linked((PTX, FIRST), (PTX, THIRD)) == UNKNOWN, "a function is missing"
assert linked((PTX, THIRD), (PTX, THIRD)) == UNKNOWN, "a kernel twice"
assert linked((PTX, THIRD), (PTX, HEAD + b"nonsense!")) == INVALID_PTX
assert linked((OBJECT, b"\x7fELF")) == linked((PTX, FIRST), (LIBRARY, b"!<arch>\n")) == INVALID_IMAGE
link = new_link()
assert add(link, NVVM, b"BC") == add(link, 6, b"BC") == NOT_SUPPORTED
assert add(link, PTX, b"") == INVALID_VALUE
assert add_file(link, LIBRARY, "/nonexistent.a") == NO_FILE

# Logs of who loads, and options that lack something.
logs = Logs()
check(driver.cuModuleLoadDataEx(c.byref(module), THIRD, *logs.arguments))
assert logs.are_empty()
logs = Logs()
assert driver.cuModuleLoadDataEx(c.byref(module), b"\1\2\3\4", *logs.arguments) == INVALID_IMAGE
assert logs.are_empty(), "nothing is said of what is refused, either"
for room in (200, 16):
    logs = Logs(room)
    assert driver.cuModuleLoadDataEx(c.byref(module), BAD, *logs.arguments) == INVALID_PTX
    assert logs.errors().startswith(b"ptxas fatal   :")
logs = Logs(200)
link = new_link(logs)
check(add(link, PTX, BAD))
assert complete(link) == INVALID_PTX and b"foo.bar" in logs.errors(), logs.errors()
check(driver.cuLinkDestroy(link))

# What a program chooses for its code: the same text, made twice.
usual = registers(load(THIRD), b"third")
for chosen in (usual // 2, usual // 4):
    check(driver.cuModuleLoadDataEx(c.byref(module), THIRD, *options((OPTIMIZATION_LEVEL, 3), (MAX_REGISTERS, chosen), (WALL_TIME, 7))))
    assert registers(module, b"third") == chosen and run(module, b"third") == 7
    link = c.c_void_p()
    check(driver.cuLinkCreate_v2(*options((MAX_REGISTERS, chosen)), c.byref(link)))
    check(add(link, PTX, THIRD))
    image = complete(link)
    assert registers(load(image), b"third") == chosen and registers(load(linked((CUBIN, image))), b"third") == chosen
check(driver.cuModuleLoadDataEx(c.byref(module), THIRD, *options((OPTIMIZATION_LEVEL, 4))))
assert registers(module, b"third") == usual
logs = Logs(room=0)
new_link(logs)
assert [buffer.value for buffer in logs.buffers] == [b"x" * 15] * 2, "there is no room"
logs = Logs()
logs.values[0] = logs.values[3] = None
new_link(logs)
assert not logs.values[1] and not logs.values[2]
assert driver.cuLinkCreate_v2(4, logs.options, None, c.byref(link)) == INVALID_VALUE
assert driver.cuLinkCreate_v2(1, None, logs.values, c.byref(link)) == INVALID_VALUE
print("linking passed")
