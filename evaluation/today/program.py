"""A model as people serve it, in a process that was started with its weights' file.

    program.py make MODEL FILE SEED [--tiny]     writes random weights; needs no GPU
    program.py serve MODEL FILE [--tiny]         answers (../functions/answering.py):

    infer     the first token of an answer: {"ms", "sha256"}
    sleep     the weights to page-locked host memory, and the GPU's given back: {"ms"}. The copies are made once and kept, as weights do
              not change: so it is faster than engines that copy each time
    wake      the weights to the GPU: {"ms"}
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "functions"))
if sys.argv[1] == "serve":
    import answering  # (It takes standard output away from everybody else.)
import hashlib  # noqa: E402
import time  # noqa: E402

import shapes  # noqa: E402
import torch  # noqa: E402


def make(name, file, seed, tiny):
    model = shapes.build(name, tiny)
    shapes.fill(model, seed)
    part = pathlib.Path(f"{file}.part")
    torch.save(model.state_dict(), part)
    part.rename(file)


class Served:
    def __init__(self, name, file, tiny):
        began = time.perf_counter()
        model = shapes.build(name, tiny)
        model.load_state_dict(torch.load(file, mmap=True, weights_only=True), assign=True)
        if hasattr(model, "tie_weights"):
            model.tie_weights()
        self.model = model.to("cuda")
        self.tensors = list(dict.fromkeys([*self.model.parameters(), *self.model.buffers()]))
        self.weights_bytes = sum(tensor.numel() * tensor.element_size() for tensor in self.tensors)
        self.first = shapes.first(name, self.model, tiny)
        torch.cuda.synchronize()
        self.load_ms = (time.perf_counter() - began) * 1e3
        self.kept = None

    def infer(self):
        begin = time.perf_counter()
        answer = self.first()
        ms = (time.perf_counter() - begin) * 1e3
        return {"ms": ms, "sha256": hashlib.sha256(answer.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()}

    def sleep(self):
        begin = time.perf_counter()
        if self.kept is None:
            self.kept = [torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor) for tensor in self.tensors]
        for tensor, kept in zip(self.tensors, self.kept):
            tensor.data = kept
        torch.cuda.empty_cache()
        torch.cuda.synchronize()
        return {"ms": (time.perf_counter() - begin) * 1e3}

    def wake(self):
        begin = time.perf_counter()
        for tensor, kept in zip(self.tensors, self.kept):
            tensor.data = kept.to("cuda", non_blocking=True)
        torch.cuda.synchronize()
        return {"ms": (time.perf_counter() - begin) * 1e3}


def main():
    what, name, file, *others = sys.argv[1:]
    tiny = "--tiny" in others
    torch.set_grad_enabled(False)
    if what == "make":
        make(name, file, int(others[0]), tiny)
        return
    served = Served(name, file, tiny)
    answering.answer({"infer": served.infer, "sleep": served.sleep, "wake": served.wake}, weights_bytes=served.weights_bytes,
                     load_ms=served.load_ms)


main()
