"""A function that never pauses: ready once its first kernel has ended; with the first line that it is told it begins. It awaits nothing, so
its turns are as long as turns may be while others wait: whoever can go to another GPU had better."""
import json
import sys

import torch


def main():
    x = torch.eye(2048, device="cuda")
    torch.cuda.synchronize()
    print(json.dumps({"ready": True}), flush=True)
    if not sys.stdin.readline():
        return
    print(json.dumps({"busy": True}), flush=True)
    while True:
        x = torch.relu(x @ x)


if __name__ == "__main__":
    main()
