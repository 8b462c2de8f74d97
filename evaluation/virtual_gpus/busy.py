"""A function that never pauses: ready once its first kernel has ended; with the first line that it is told it begins."""
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
        for _ in range(50):
            x = torch.relu(x @ x)
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
