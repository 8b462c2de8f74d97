"""What evaluation/virtual_gpus/run starts: the same work in one process, and in the ranks of torchrun.

    program.py alone FILE
    torchrun --nproc-per-node N program.py ranks FILE [FOLDER ROUNDS]

The work: a matmul of whole numbers whose columns and rows the ranks share (all-reduced; exact, so bits must be equal), the same of a
random MLP (compared within a tolerance, since sums have another order), and training of a small network on the two halves of each
batch, whose gradients are averaged. FILE gets the outcomes; of ranks that of the first, with what the others have. With FOLDER the ranks go on for so many rounds, with what they
have on their GPUs: before each they make FOLDER/paused-ROUND-RANK and wait for FOLDER/go-ROUND.
"""
import os
import pathlib
import sys
import time

# Before CUDA: the same kernels, in the same order, in every process.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import torch  # noqa: E402
from torch import distributed, nn  # noqa: E402

STEPS, BATCH, WIDTH = 20, 64, 512


def numbers(*shape, seed):
    """Small whole numbers: their products and sums are exact in single precision, in any order."""
    return torch.randint(-4, 5, shape, generator=torch.Generator().manual_seed(seed)).float()


def values(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10))


def part(matrix, dimension, rank, ranks):
    return matrix.chunk(ranks, dimension)[rank].contiguous()


def tensor_parallel(make, device, rank, ranks):
    """relu(x A) B, with columns of A and rows of B for each rank, and the sum of all."""
    x, a, b = make(BATCH, WIDTH, seed=2), make(WIDTH, 4 * WIDTH, seed=3), make(4 * WIDTH, WIDTH, seed=4)
    x, a, b = x.to(device), part(a, 1, rank, ranks).to(device), part(b, 0, rank, ranks).to(device)
    out = torch.relu(x @ a) @ b
    if ranks > 1:
        distributed.all_reduce(out)
    return out.cpu()


class Training:
    """A network that is trained on parts of each batch."""

    def __init__(self, device, rank, ranks):
        self.device, self.place, self.done = device, (rank, ranks), 0
        self.model = network().to(device)
        self.parallel = nn.parallel.DistributedDataParallel(self.model, device_ids=[device.index]) if ranks > 1 else self.model
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.5)

    def go_on(self):
        """The parameters after some more steps, and the losses of the first part of each batch."""
        losses = []
        for step in range(self.done, self.done + STEPS):
            data = part(values(BATCH, WIDTH, seed=100 + step), 0, *self.place).to(self.device)
            labels = torch.arange(BATCH) % 10
            self.optimizer.zero_grad()
            loss = nn.functional.cross_entropy(self.parallel(data), part(labels, 0, *self.place).to(self.device))
            loss.backward()
            self.optimizer.step()
            losses.append(loss.item())
        self.done += STEPS
        return torch.cat([parameter.detach().flatten() for parameter in self.model.parameters()]).cpu(), losses


def pipeline(device, rank, ranks, layer):
    """What a layer of each rank in turn makes of a batch: each is given what the one before it has made. Of the last, told to all."""
    x = values(BATCH, WIDTH, seed=5).to(device)
    if rank > 0:
        distributed.recv(x, rank - 1)
    x = torch.relu(layer(x))
    if rank < ranks - 1:
        distributed.send(x, rank + 1)
    distributed.broadcast(x, ranks - 1)
    return x.detach().cpu()


def pause(folder, number, device, rank):
    """Does nothing until it may go on."""
    torch.cuda.synchronize(device)
    (folder / f"paused-{number}-{rank}").touch()
    while not (folder / f"go-{number}").exists():
        time.sleep(0.02)


def collectives(device, rank, ranks):
    """What each rank says reaches all, by each of NCCL's ways."""
    own = torch.full((1 << 20,), float(rank + 1), device=device)
    distributed.all_reduce(own)
    assert torch.all(own == ranks * (ranks + 1) / 2), "all_reduce"
    gathered = [torch.empty(1000, device=device) for _ in range(ranks)]
    distributed.all_gather(gathered, torch.full((1000,), float(rank), device=device))
    assert all(torch.all(one == at) for at, one in enumerate(gathered)), "all_gather"
    told = torch.arange(1000, device=device) * (rank == 0)
    distributed.broadcast(told, 0)
    assert torch.equal(told, torch.arange(1000, device=device)), "broadcast"
    scattered = torch.empty(100, device=device)
    distributed.reduce_scatter_tensor(scattered, torch.ones(100 * ranks, device=device))
    assert torch.all(scattered == ranks), "reduce_scatter"
    if ranks > 1:
        sent = torch.full((1 << 16,), float(rank), device=device)
        got = torch.empty_like(sent)
        ways = [distributed.P2POp(distributed.isend, sent, (rank + 1) % ranks),
                distributed.P2POp(distributed.irecv, got, (rank - 1) % ranks)]
        for request in distributed.batch_isend_irecv(ways):
            request.wait()
        assert torch.all(got == (rank - 1) % ranks), "send and receive"
    distributed.barrier()


def main():
    kind, file, *pauses = sys.argv[1:]
    rank, ranks = (int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])) if kind == "ranks" else (0, 1)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.use_deterministic_algorithms(True)
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]) if kind == "ranks" else 0)
    torch.cuda.set_device(device)
    seen = [str(torch.cuda.get_device_properties(number).uuid) for number in range(torch.cuda.device_count())]
    print(f"rank {rank} of {ranks} on {device}, sees {seen}", flush=True)
    assert kind != "ranks" or len(set(seen)) == len(seen) >= ranks
    if kind == "ranks":
        distributed.init_process_group("nccl", device_id=device)
        collectives(device, rank, ranks)
        print(f"rank {rank}: collectives passed", flush=True)
    outcome = {"exact": tensor_parallel(numbers, device, rank, ranks), "close": tensor_parallel(values, device, rank, ranks)}
    training = Training(device, rank, ranks)
    outcome["parameters"], outcome["losses"] = training.go_on()
    outcome["rounds"] = []
    if pauses:
        folder, rounds = pathlib.Path(pauses[0]), int(pauses[1])
        torch.manual_seed(10 + rank)
        layer = nn.Linear(WIDTH, WIDTH).to(device)
        for number in range(rounds):
            pause(folder, number, device, rank)
            outcome["rounds"].append({"exact": tensor_parallel(numbers, device, rank, ranks), "pipeline": pipeline(device, rank, ranks, layer),
                                      "parameters": training.go_on()[0]})
    if kind == "ranks":
        theirs = [None] * ranks
        distributed.all_gather_object(theirs, outcome["parameters"])
        assert all(torch.equal(one, theirs[0]) for one in theirs), "all ranks have the same parameters"
    if rank == 0:
        torch.save(outcome, file)
    if kind == "ranks":
        distributed.barrier()
        distributed.destroy_process_group()
    print(f"rank {rank} passed", flush=True)


if __name__ == "__main__":
    main()
