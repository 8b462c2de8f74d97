"""A function for run: the victim of an attack on its memory, or the attacker. Plain CUDA driver API, so that it runs on a simulated GPU too.

    program.py SECRET victim MIB   fills MIB of device memory and a page of page-locked memory with the secret, and prints
                                   {"device": ADDRESS, "pinned": ADDRESS, "pid": PID}; then, for each line of its input:
                                     check    {"intact": whether all of both is the secret still}
                                     residue  {"left": ...} once kernels of it have written the secret to the shared memory and the
                                              registers of every multiprocessor, to local memory, and to memory of the device's heap
    program.py SECRET find ADDRESS BYTES   {"found": how many words there are the secret}, or {"error": CUDA's code}: by a kernel that reads
    program.py SECRET write ADDRESS   {"written": true}, or {"error": CUDA's code}: by a kernel that writes one word there
    program.py SECRET residue      {"shared": N, "local": N, "heap": N}: words of the secret that its kernels find in each before they
                                   have written there; null where the GPU has none of it (the simulated one has no heap)

SECRET is a word of 32 bits that nobody else uses.
"""
import array
import contextlib
import ctypes
import json
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from driver_api import Failed, allocate, call, enter, launch, made  # noqa: E402

SECRET = int(sys.argv[1], 0)
THREADS = 256

# CUDA_ERROR_NO_BINARY_FOR_GPU, CUDA_ERROR_INVALID_PTX
NO_CODE = (209, 218)

# Words of shared memory that each block has: 48 KiB, what every GPU gives without being asked.
SHARED_WORDS = 12288
# Words of local memory of each thread.
LOCAL_WORDS = 256
# Words that each of a few threads takes of the heap.
HEAP_WORDS = 1024

PTX = f"""
.version 7.0
.target sm_70
.address_size 64

.visible .entry fill(.param .u64 data, .param .u64 words) {{
  .reg .pred %p; .reg .b32 %r<5>; .reg .b64 %rd<6>;
  ld.param.u64 %rd1, [data]; ld.param.u64 %rd2, [words];
  mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ntid.x; mov.u32 %r3, %tid.x; mad.lo.u32 %r1, %r1, %r2, %r3;
  mov.u32 %r4, %nctaid.x; mul.lo.u32 %r2, %r2, %r4; cvt.u64.u32 %rd3, %r1; cvt.u64.u32 %rd4, %r2; mov.u32 %r3, {SECRET};
AGAIN:
  setp.ge.u64 %p, %rd3, %rd2; @%p bra DONE;
  shl.b64 %rd5, %rd3, 2; add.u64 %rd5, %rd1, %rd5; st.global.u32 [%rd5], %r3;
  add.u64 %rd3, %rd3, %rd4; bra AGAIN;
DONE:
  ret;
}}
.visible .entry find(.param .u64 data, .param .u64 words, .param .u64 count) {{
  .reg .pred %p; .reg .b32 %r<6>; .reg .b64 %rd<7>;
  ld.param.u64 %rd1, [data]; ld.param.u64 %rd2, [words]; ld.param.u64 %rd6, [count];
  mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ntid.x; mov.u32 %r3, %tid.x; mad.lo.u32 %r1, %r1, %r2, %r3;
  mov.u32 %r4, %nctaid.x; mul.lo.u32 %r2, %r2, %r4; cvt.u64.u32 %rd3, %r1; cvt.u64.u32 %rd4, %r2;
AGAIN:
  setp.ge.u64 %p, %rd3, %rd2; @%p bra DONE;
  shl.b64 %rd5, %rd3, 2; add.u64 %rd5, %rd1, %rd5; ld.volatile.global.u32 %r3, [%rd5];
  add.u64 %rd3, %rd3, %rd4;
  setp.ne.u32 %p, %r3, {SECRET}; @%p bra AGAIN;
  atom.global.add.u32 %r5, [%rd6], 1; bra AGAIN;
DONE:
  ret;
}}
.visible .entry poke(.param .u64 address) {{
  .reg .b32 %r<2>; .reg .b64 %rd<2>;
  ld.param.u64 %rd1, [address]; mov.u32 %r1, 1; st.volatile.global.u32 [%rd1], %r1;
  ret;
}}
.visible .entry leave_shared() {{
  .shared .align 4 .b8 room[{SHARED_WORDS * 4}];
  .reg .pred %p; .reg .b32 %r<5>;
  mov.u32 %r1, %tid.x; shl.b32 %r1, %r1, 2; mov.u32 %r2, %ntid.x; shl.b32 %r2, %r2, 2; mov.u32 %r3, room; mov.u32 %r4, {SECRET};
AGAIN:
  setp.ge.u32 %p, %r1, {SHARED_WORDS * 4}; @%p bra DONE;
  .reg .b32 %a; add.u32 %a, %r3, %r1; st.volatile.shared.u32 [%a], %r4;
  add.u32 %r1, %r1, %r2; bra AGAIN;
DONE:
  ret;
}}
.visible .entry find_shared(.param .u64 count) {{
  .shared .align 4 .b8 room[{SHARED_WORDS * 4}];
  .reg .pred %p; .reg .b32 %r<6>; .reg .b64 %rd;
  ld.param.u64 %rd, [count];
  mov.u32 %r1, %tid.x; shl.b32 %r1, %r1, 2; mov.u32 %r2, %ntid.x; shl.b32 %r2, %r2, 2; mov.u32 %r3, room;
AGAIN:
  setp.ge.u32 %p, %r1, {SHARED_WORDS * 4}; @%p bra DONE;
  .reg .b32 %a; add.u32 %a, %r3, %r1; ld.volatile.shared.u32 %r4, [%a];
  add.u32 %r1, %r1, %r2;
  setp.ne.u32 %p, %r4, {SECRET}; @%p bra AGAIN;
  atom.global.add.u32 %r5, [%rd], 1; bra AGAIN;
DONE:
  ret;
}}
.visible .entry leave_local() {{
  .local .align 4 .b8 room[{LOCAL_WORDS * 4}];
  .reg .pred %p; .reg .b32 %r<3>; .reg .b64 %rd<3>;
  mov.u64 %rd1, room; cvta.local.u64 %rd1, %rd1; mov.u32 %r1, 0; mov.u32 %r2, {SECRET};
AGAIN:
  cvt.u64.u32 %rd2, %r1; add.u64 %rd2, %rd1, %rd2; st.volatile.u32 [%rd2], %r2;
  add.u32 %r1, %r1, 4; setp.lt.u32 %p, %r1, {LOCAL_WORDS * 4}; @%p bra AGAIN;
  ret;
}}
.visible .entry find_local(.param .u64 count) {{
  .local .align 4 .b8 room[{LOCAL_WORDS * 4}];
  .reg .pred %p, %q; .reg .b32 %r<4>; .reg .b64 %rd<4>;
  ld.param.u64 %rd3, [count]; mov.u64 %rd1, room; cvta.local.u64 %rd1, %rd1; mov.u32 %r1, 0;
AGAIN:
  cvt.u64.u32 %rd2, %r1; add.u64 %rd2, %rd1, %rd2; ld.volatile.u32 %r2, [%rd2];
  setp.eq.u32 %q, %r2, {SECRET}; @%q atom.global.add.u32 %r3, [%rd3], 1;
  add.u32 %r1, %r1, 4; setp.lt.u32 %p, %r1, {LOCAL_WORDS * 4}; @%p bra AGAIN;
  ret;
}}
""".encode() + b"\0"

HEAP_PTX = f"""
.version 7.0
.target sm_70
.address_size 64
.extern .func (.param .b64 got) malloc (.param .b64 bytes);
.extern .func free (.param .b64 it);

.visible .entry leave_heap() {{
  .reg .pred %p; .reg .b32 %r<3>; .reg .b64 %rd<4>;
  mov.u64 %rd1, {HEAP_WORDS * 4};
  {{ .param .b64 bytes; .param .b64 got; st.param.b64 [bytes], %rd1; call.uni (got), malloc, (bytes); ld.param.b64 %rd2, [got]; }}
  setp.eq.u64 %p, %rd2, 0; @%p bra DONE;
  mov.u32 %r1, 0; mov.u32 %r2, {SECRET};
AGAIN:
  cvt.u64.u32 %rd3, %r1; add.u64 %rd3, %rd2, %rd3; st.volatile.u32 [%rd3], %r2;
  add.u32 %r1, %r1, 4; setp.lt.u32 %p, %r1, {HEAP_WORDS * 4}; @%p bra AGAIN;
  {{ .param .b64 it; st.param.b64 [it], %rd2; call.uni free, (it); }}
DONE:
  ret;
}}
.visible .entry find_heap(.param .u64 count) {{
  .reg .pred %p, %q; .reg .b32 %r<4>; .reg .b64 %rd<5>;
  ld.param.u64 %rd4, [count]; mov.u64 %rd1, {HEAP_WORDS * 4};
  {{ .param .b64 bytes; .param .b64 got; st.param.b64 [bytes], %rd1; call.uni (got), malloc, (bytes); ld.param.b64 %rd2, [got]; }}
  setp.eq.u64 %p, %rd2, 0; @%p bra DONE;
  mov.u32 %r1, 0;
AGAIN:
  cvt.u64.u32 %rd3, %r1; add.u64 %rd3, %rd2, %rd3; ld.volatile.u32 %r2, [%rd3];
  setp.eq.u32 %q, %r2, {SECRET}; @%q atom.global.add.u32 %r3, [%rd4], 1;
  add.u32 %r1, %r1, 4; setp.lt.u32 %p, %r1, {HEAP_WORDS * 4}; @%p bra AGAIN;
  {{ .param .b64 it; st.param.b64 [it], %rd2; call.uni free, (it); }}
DONE:
  ret;
}}
""".encode() + b"\0"

def say(**what):
    print(json.dumps(what), flush=True)


class Gpu:
    """A context, and the kernels above."""

    def __init__(self):
        device = enter()
        self.multiprocessors = made("cuDeviceGetAttribute", 16, device, kind=ctypes.c_int).value
        self.module = made("cuModuleLoadData", PTX)
        self.heap = made("cuModuleLoadData", HEAP_PTX)

    def launch(self, name, blocks, threads, *parameters, module=None):
        kernel = made("cuModuleGetFunction", module or self.module, name.encode())
        launch(kernel, blocks, threads, *map(ctypes.c_uint64, parameters))

    def synchronize(self):
        call("cuCtxSynchronize")

    def fill(self, address, size):
        self.launch("fill", 64, THREADS, address, size // 4)

    def counted(self, name, blocks, threads, *parameters, module=None):
        """What a kernel adds to a word whose address is its last parameter."""
        count = allocate(4)
        call("cuMemsetD32_v2", ctypes.c_uint64(count), 0, ctypes.c_size_t(1))
        self.launch(name, blocks, threads, *parameters, count, module=module)
        word = ctypes.c_uint32()
        call("cuMemcpyDtoH_v2", ctypes.byref(word), ctypes.c_uint64(count), ctypes.c_size_t(4))
        return word.value


def victim(gpu, mib):
    size = mib << 20
    device = allocate(size)
    gpu.fill(device, size)
    page = made("cuMemHostAlloc", ctypes.c_size_t(1 << 16), 0)
    words = (ctypes.c_uint32 * (1 << 14)).from_address(page.value)
    words[:] = array.array("I", [SECRET] * len(words))
    gpu.synchronize()
    say(device=device, pinned=page.value, pid=os.getpid())
    for line in sys.stdin:
        if line.split() == ["check"]:
            there = gpu.counted("find", 64, THREADS, device, size // 4)
            say(intact=there == size // 4 and all(word == SECRET for word in words))
        elif line.split() == ["residue"]:
            # More blocks than there is room for at once: every multiprocessor has some.
            blocks = gpu.multiprocessors * 16
            for _ in range(4):
                gpu.launch("leave_shared", blocks, THREADS)
                gpu.launch("leave_local", blocks, THREADS)
            kinds = ["shared", "local"]
            with contextlib.suppress(Failed):
                gpu.launch("leave_heap", 8, 32, module=gpu.heap)
                kinds.append("heap")
            gpu.synchronize()
            say(left=kinds)


def residue(gpu):
    blocks = gpu.multiprocessors * 16
    shared, local = gpu.counted("find_shared", blocks, THREADS), gpu.counted("find_local", blocks, THREADS)
    try:
        heap = gpu.counted("find_heap", 8, 32, module=gpu.heap)
    except Failed as failed:
        # No code for this GPU.
        if failed.code not in NO_CODE:
            raise
        heap = None
    say(shared=shared, local=local, heap=heap)


def main():
    what, *arguments = sys.argv[2:]
    try:
        gpu = Gpu()
        if what == "victim":
            victim(gpu, int(arguments[0]))
        elif what == "find":
            address, size = int(arguments[0], 0), int(arguments[1], 0)
            say(found=gpu.counted("find", 64, THREADS, address, size // 4))
        elif what == "write":
            gpu.launch("poke", 1, 1, int(arguments[0], 0))
            gpu.synchronize()
            say(written=True)
        elif what == "residue":
            residue(gpu)
        else:
            sys.exit(__doc__)
    except Failed as failed:
        say(error=failed.code)


if __name__ == "__main__":
    main()
