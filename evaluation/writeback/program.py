"""A program that holds 1 GiB of device memory and a buffer of 4 MiB beside it. Commands (../functions/answering.py):

    read     copies the buffer and the first bytes of every tensor back, without a kernel: {"sha256"}
    change   writes the whole buffer by a kernel
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "functions"))
import answering  # noqa: E402 (first of all that may print)
import argparse  # noqa: E402
import hashlib  # noqa: E402

import torch  # noqa: E402

BUFFER_BYTES = 4 << 20


class Program:
    def __init__(self, device, total_bytes, kernels):
        generator = torch.Generator().manual_seed(0)

        def random(size):
            return torch.randint(-1 << 62, 1 << 62, (size // 8,), generator=generator).to(device)

        self.tensors = [random(total_bytes // 8) for _ in range(8)]
        self.buffer = random(BUFFER_BYTES)
        self.kernels = kernels
        self.device = device
        self.synchronise()

    def synchronise(self):
        if self.device == "cuda":
            torch.cuda.synchronize()

    def change(self):
        if self.kernels:
            self.buffer.add_(1)
        else:
            self.buffer.copy_(self.buffer.cpu().add_(1))
        self.synchronise()
        return {}

    def read(self):
        total = hashlib.sha256(self.buffer.cpu().numpy().tobytes())
        for tensor in self.tensors:
            total.update(tensor[:4096].cpu().numpy().tobytes())
        return {"sha256": total.hexdigest()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--without-kernels", action="store_true", help="where the GPU is simulated")
    parser.add_argument("--device", default="cuda", help=argparse.SUPPRESS)
    given = parser.parse_args()
    program = Program(given.device, given.mib << 20, not given.without_kernels)
    answering.answer({"read": program.read, "change": program.change}, buffer_bytes=BUFFER_BYTES)
