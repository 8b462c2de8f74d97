"""A training loop that never waits for the GPU but to look at its loss now and then.

    training.py [--batch N]

Commands (../functions/answering.py):

    busy SECONDS   steps of ResNet-50 for so long, the loss after every tenth: {"at": when it was looked at, "steps", "losses"}
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "functions"))
import answering  # noqa: E402 (first of all that may print)
import argparse  # noqa: E402
import math  # noqa: E402
import time  # noqa: E402

import torch  # noqa: E402
from torch import nn  # noqa: E402

LOOK_EVERY = 10


class Training:
    def __init__(self, device, batch):
        from torchvision import models
        torch.manual_seed(0)
        self.model = models.resnet50(num_classes=10).to(device)
        self.optimiser = torch.optim.SGD(self.model.parameters(), 1e-3)
        self.data = torch.randn(batch, 3, 224, 224).to(device)
        self.labels = torch.randint(0, 10, (batch,)).to(device)

    def step(self):
        self.optimiser.zero_grad()
        loss = nn.functional.cross_entropy(self.model(self.data), self.labels)
        loss.backward()
        self.optimiser.step()
        return loss

    def busy(self, seconds):
        end = time.monotonic() + float(seconds)
        at, losses = [], []
        while time.monotonic() < end:
            for _ in range(LOOK_EVERY):
                loss = self.step()
            losses.append(loss.item())
            at.append(time.monotonic())
            if not math.isfinite(losses[-1]):
                raise ArithmeticError(f"the loss is {losses[-1]}")
        return {"at": at, "steps": len(at) * LOOK_EVERY, "losses": losses}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--device", default="cuda", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    training = Training(given.device, given.batch)
    answering.answer({"busy": training.busy})
