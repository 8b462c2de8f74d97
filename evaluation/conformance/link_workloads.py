"""Programs that link their kernels at run time, for `run`: what the driver's linker or nvJitLink makes of several inputs is loaded and
launched, and its numbers and variables are those that Python computes.

    link_workloads.py link_ptx | link_options | link_cubin | link_fatbin | link_library | link_nvjitlink | link_lto | link_lto_ptx

link_fatbin and link_library need a compiler (evaluation/nvcc.py), all but link_ptx and link_options need NVRTC (evaluation/nvrtc.py).
"""

import pathlib
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import ctypes  # noqa: E402

from driver_api import Failed, allocate, call, enter, launch, made  # noqa: E402
from linking import CUBIN, FATBIN, HEAD, KERNEL, LIBRARY, OBJECT, PTX, SCRAMBLE, Advancing, link  # noqa: E402

SOURCES = [HERE / "advance.cu", HERE / "scramble.cu"]


def architecture(device):
    """The GPU's, as compilers name it: 90."""
    return "".join(str(made("cuDeviceGetAttribute", which, device, kind=ctypes.c_int).value) for which in (75, 76))


def check(image):
    """Two modules of an image, which have variables of their own, in turns."""
    modules = Advancing(image), Advancing(image)
    for factor in (3, 5, 1 << 31, 0xFFFFFFFF):
        for module in modules:
            module.advance(factor)


def texts(_):
    for inputs in ((KERNEL, SCRAMBLE), (SCRAMBLE, KERNEL + b"\0")):
        check(link(*((PTX, text) for text in inputs)))
    unrelated = KERNEL.replace(b"advance", b"another").replace(b"factor", b"other_factor")
    check(link((PTX, KERNEL), (PTX, unrelated), (PTX, SCRAMBLE)))
    for inputs in ((KERNEL, unrelated), (KERNEL, SCRAMBLE, SCRAMBLE)):
        try:
            link(*((PTX, text) for text in inputs))
        except Failed:
            continue
        raise AssertionError("a function is missing, or there twice")


def cubin(device):
    from nvrtc import compiled
    compiled_here = compiled(SOURCES[1].read_bytes(), "CUBIN", f"-arch=sm_{architecture(device)}", "-rdc=true")
    check(link((PTX, KERNEL), (CUBIN, compiled_here)))
    # Nothing of PTX: the kernel is machine code as well.
    both = [compiled(source.read_bytes(), "CUBIN", f"-arch=sm_{architecture(device)}", "-rdc=true") for source in SOURCES]
    check(link(*((CUBIN, one) for one in both)))


def fatbin(_):
    from nvcc import compile_cuda
    with tempfile.TemporaryDirectory() as folder:
        files = [pathlib.Path(folder) / f"{source.stem}.fatbin" for source in SOURCES]
        for source, file in zip(SOURCES, files):
            compile_cuda(source, file, "-fatbin", "-rdc=true")
        check(link((PTX, KERNEL), (FATBIN, files[1].read_bytes())))
        check(link(*((FATBIN, file) for file in files)))


def library(_):
    from nvcc import compile_cuda
    with tempfile.TemporaryDirectory() as folder:
        archive, thing = pathlib.Path(folder) / "libscramble.a", pathlib.Path(folder) / "scramble.o"
        compile_cuda(SOURCES[1], archive, "-lib", "-rdc=true")
        compile_cuda(SOURCES[1], thing, "-dc")
        check(link((PTX, KERNEL), (LIBRARY, archive)))
        check(link((PTX, KERNEL), (LIBRARY, archive.read_bytes())))
        check(link((PTX, KERNEL), (OBJECT, thing.read_bytes())))


def nvjitlink(device):
    import nvrtc
    scramble = nvrtc.compiled(SOURCES[1].read_bytes(), "PTX", "-arch=compute_75", "-rdc=true")
    check(nvrtc.linked(nvrtc.PTX, [KERNEL, scramble], "Cubin", f"-arch=sm_{architecture(device)}"))


def lto(device, what="Cubin", *options):
    import nvrtc
    target = f"-arch=sm_{architecture(device)}"
    parts = [nvrtc.compiled(source.read_bytes(), "LTOIR", target, "-rdc=true", "-dlto") for source in SOURCES]
    check(nvrtc.linked(nvrtc.LTO_IR, parts, what, target, "-lto", *options))


def lto_ptx(device):
    lto(device, "Ptx", "-ptx")


# CUjit_option, and CU_FUNC_ATTRIBUTE_NUM_REGS.
MAX_REGISTERS, ERROR_LOG, ERROR_LOG_BYTES = 0, 5, 6
REGISTERS = 4


def wide(count):
    """A kernel that holds so many words at a time: the first is multiplied with all of them."""
    names = [f"%r{number}" for number in range(count)]
    loads = "".join(f"ld.volatile.global.u32 {name}, [%d+{4 * number}];" for number, name in enumerate(names))
    products = "".join(f"mad.lo.u32 {names[0]}, {names[0]}, {name}, {number};" for number, name in reversed(list(enumerate(names))))
    return HEAD + f""".visible .entry wide(.param .u64 place) {{ .reg .b32 %r<{count}>; .reg .b64 %d;
    ld.param.u64 %d, [place]; cvta.to.global.u64 %d, %d; {loads} {products} st.global.u32 [%d], {names[0]}; ret; }}
""".encode()


def options(_):
    """Registers that a program allows, of a module and of a link, and what it is told of errors."""
    count = 96
    text, words = wide(count), [3 + 2 * number for number in range(count)]
    expected = words[0]
    for number, word in reversed(list(enumerate(words))):
        expected = (expected * (word if number else expected) + number) % (1 << 32)
    limit = (ctypes.c_uint * 1)(MAX_REGISTERS), (ctypes.c_void_p * 1)(40)
    state = ctypes.c_void_p()
    call("cuLinkCreate_v2", 1, *limit, ctypes.byref(state))
    call("cuLinkAddData_v2", state, PTX, text, ctypes.c_size_t(len(text)), b"wide", 0, None, None)
    image, size = ctypes.c_void_p(), ctypes.c_size_t()
    call("cuLinkComplete", state, ctypes.byref(image), ctypes.byref(size))
    modules = [made("cuModuleLoadData", text), made("cuModuleLoadDataEx", text, 1, *limit), made("cuModuleLoadData", image)]
    call("cuLinkDestroy", state)
    registers = []
    for module in modules:
        kernel, place = made("cuModuleGetFunction", module, b"wide"), allocate(4 * count)
        registers.append(made("cuFuncGetAttribute", REGISTERS, kernel, kind=ctypes.c_int).value)
        call("cuMemcpyHtoD_v2", ctypes.c_uint64(place), (ctypes.c_uint32 * count)(*words), ctypes.c_size_t(4 * count))
        launch(kernel, 1, 1, ctypes.c_uint64(place))
        got = ctypes.c_uint32()
        call("cuMemcpyDtoH_v2", ctypes.byref(got), ctypes.c_uint64(place), ctypes.c_size_t(4))
        assert got.value == expected, (got.value, expected)
    assert registers[0] > 40 >= max(registers[1:]), registers
    said = ctypes.create_string_buffer(b"x" * 999)
    logs = (ctypes.c_uint * 2)(ERROR_LOG_BYTES, ERROR_LOG), (ctypes.c_void_p * 2)(len(said), ctypes.addressof(said))
    try:
        made("cuModuleLoadDataEx", text.replace(b"mad.lo", b"mad.no"), 2, *logs)
    except Failed as failed:
        print(f"registers {registers}; error {failed.code}, {logs[1][0]} bytes: {said.value.decode()!r}")
        assert failed.code == 218 and said.value.startswith(b"ptxas"), (failed, said.value)
    else:
        raise AssertionError("the text cannot be compiled")


WORKLOADS = {"link_ptx": texts, "link_options": options, "link_cubin": cubin, "link_fatbin": fatbin, "link_library": library,
             "link_nvjitlink": nvjitlink, "link_lto": lto, "link_lto_ptx": lto_ptx}

if __name__ == "__main__":
    WORKLOADS[sys.argv[1]](enter())
    print(f"{sys.argv[1]} passed")
