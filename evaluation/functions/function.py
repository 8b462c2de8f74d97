"""One inference function: a model on the GPU that answers requests, batch 1, fp32, random weights.

    function.py MODEL [--seed N] [--input-seed N] [--deterministic]

It is ready when the weights are on the GPU; nothing has run there then. Commands (answering.py):

    infer [INPUT_SEED]   the input to the GPU, the model, the output back: {"ms", "sha256" of the output}
    busy SECONDS         one inference after the other for so long: {"at": when each had its output (seconds of the machine's
                         monotonic clock), "ms", "sha256": the different ones}
    reload               what programs without Torpor do to come back: own page-locked copies of the weights go to the GPU
                         again, then an inference: {"ms", "copy_ms", "infer_ms", "sha256"}; the copies are made the first time
"""

import answering  # noqa: I001 (first: it takes standard output away from everybody else)
import argparse
import hashlib
import os
import time


class Function:
    def __init__(self, arguments):
        self.device = arguments.device
        self.name = arguments.model
        begin = time.perf_counter()
        model = models.build(self.name, arguments.seed)
        self.data = models.example(self.name, arguments.input_seed)
        self.weights_bytes = models.weights_bytes(model)
        built = time.perf_counter()
        self.model = model.to(self.device)
        self.synchronise()
        self.build_ms, self.load_ms = (built - begin) * 1e3, (time.perf_counter() - built) * 1e3
        self.pinned = None

    def synchronise(self):
        if self.device == "cuda":
            torch.cuda.synchronize()

    def infer(self, input_seed=None):
        data = self.data if input_seed is None else models.example(self.name, int(input_seed))
        begin = time.perf_counter()
        answer = models.output(self.model(data.to(self.device))).cpu()
        ms = (time.perf_counter() - begin) * 1e3
        return {"ms": ms, "sha256": hashlib.sha256(answer.contiguous().numpy().tobytes()).hexdigest()}

    def busy(self, seconds):
        end = time.monotonic() + float(seconds)
        at, ms, hashes = [], [], set()
        while time.monotonic() < end:
            inferred = self.infer()
            at.append(time.monotonic())
            ms.append(inferred["ms"])
            hashes.add(inferred["sha256"])
        return {"at": at, "ms": ms, "sha256": sorted(hashes)}

    def reload(self):
        if self.pinned is None:
            tensors = [*self.model.parameters(), *self.model.buffers()]
            self.pinned = [(tensor, torch.empty_like(tensor, device="cpu", pin_memory=self.device == "cuda").copy_(tensor))
                           for tensor in tensors]
            self.synchronise()
        begin = time.perf_counter()
        for tensor, copy in self.pinned:
            tensor.copy_(copy, non_blocking=True)
        self.synchronise()
        copied = time.perf_counter()
        inferred = self.infer()
        return {"ms": (time.perf_counter() - begin) * 1e3, "copy_ms": (copied - begin) * 1e3,
                "infer_ms": inferred["ms"], "sha256": inferred["sha256"]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    parser.add_argument("--input-seed", type=int, default=0)
    parser.add_argument("--deterministic", action="store_true", help="the same bits from the first inference on")
    parser.add_argument("--device", default="cuda", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    import models
    import torch

    torch.set_num_threads(1)
    torch.backends.cudnn.deterministic = given.deterministic
    with torch.no_grad():
        function = Function(given)
        answering.answer({"infer": function.infer, "busy": function.busy, "reload": function.reload},
                         model=given.model, weights_bytes=function.weights_bytes, build_ms=function.build_ms, load_ms=function.load_ms)
