"""What evaluation/virtual_gpus/run starts: the same work in one process, and in the ranks of torchrun.

    program.py alone FILE
    torchrun --nproc-per-node N program.py ranks FILE

The work: a matmul of whole numbers whose columns and rows the ranks share (all-reduced; exact, so bits must be equal), the same of a
random MLP (compared within a tolerance, since sums have another order), and training of a small network on the two halves of each
batch, whose gradients are averaged. FILE gets the outcomes; of ranks that of the first, with what the others have.
"""
import os
import sys

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


def train(device, rank, ranks):
    """The parameters after some steps, and the losses of the first half of each batch."""
    model = network().to(device)
    parallel = nn.parallel.DistributedDataParallel(model, device_ids=[device.index]) if ranks > 1 else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    for step in range(STEPS):
        data = part(values(BATCH, WIDTH, seed=100 + step), 0, rank, ranks).to(device)
        labels = torch.arange(BATCH) % 10
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(parallel(data), part(labels, 0, rank, ranks).to(device))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]).cpu(), losses


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
    kind, file = sys.argv[1:]
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
    outcome["parameters"], outcome["losses"] = train(device, rank, ranks)
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
