"""Which values of CUDA_VISIBLE_DEVICES show the device: by number, by UUID, by its beginning, set by the parent or by itself."""
import ctypes
import os
import subprocess
import sys


def seen():
    cuda, identity = ctypes.CDLL("libcuda.so.1"), (ctypes.c_ubyte * 16)()
    code = cuda.cuInit(0)
    if code:
        return f"error {code}"
    assert cuda.cuDeviceGetUuid_v2(identity, 0) == 0
    return bytes(identity).hex()


if sys.argv[1:]:
    if sys.argv[1] == "own":
        os.environ["CUDA_VISIBLE_DEVICES"] = sys.argv[2]
    print(seen())
    sys.exit()


def child(*arguments, **variables):
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"} | variables
    return subprocess.check_output([sys.executable, __file__, *arguments], env=environment, text=True, timeout=60).strip()


identity = child("inherited")
parts = (identity[:8], identity[8:12], identity[12:16], identity[16:20], identity[20:])
uuid = "GPU-" + "-".join(parts)
for value in ("0", "0,1", "0,-1", uuid, uuid[:12], uuid.upper().replace("GPU", "GPU"), f"{uuid[:8]},0"):
    assert child("inherited", CUDA_VISIBLE_DEVICES=value) == child("own", value) == identity, value
for value in ("", "-1", "-1,0", "99", "GPU-00000000", f"GPU-00000000,{uuid}", uuid[:-1] + ("0" if uuid[-1] != "0" else "1")):
    assert child("inherited", CUDA_VISIBLE_DEVICES=value) == child("own", value) == "error 100", value
print("visible passed")
