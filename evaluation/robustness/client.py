"""A client that infers without end and says what happened: one line per event, with the time of the machine's clock.

ready; slow TIME SECONDS (an inference ten times slower than the median so far); wrong; error TIME MESSAGE.
Ends at end of input, with the number of inferences, or after an error.
"""
import os
import sys
import threading
import time

import torch
from torchvision import models

torch.manual_seed(int(sys.argv[2]))
model = getattr(models, sys.argv[1])().eval().cuda()
data = torch.randn(1, 3, 224, 224)
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()


def say(*words):
    print(*words, flush=True)


try:
    with torch.no_grad():
        reference = model(data.cuda()).cpu()
        # The first inferences choose algorithms; from the third on the same bits are expected.
        reference = [model(data.cuda()).cpu() for _ in range(3)][-1]
        say("ready", os.getpid())
        times = []
        while not stop.is_set():
            begin = time.monotonic()
            output = model(data.cuda()).cpu()
            times.append(time.monotonic() - begin)
            if not torch.equal(output, reference):
                say("wrong")
            if len(times) > 20 and times[-1] > 10 * sorted(times)[len(times) // 2]:
                say("slow", time.time(), f"{times[-1]:.4f}")
        say("done", len(times), f"median_ms {sorted(times)[len(times) // 2] * 1e3:.3f} max_ms {max(times) * 1e3:.3f}")
except RuntimeError as error:
    say("error", time.time(), str(error).splitlines()[0])
    sys.exit(3)
