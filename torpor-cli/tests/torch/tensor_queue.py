"""CUDA tensors that travel through a queue of torch.multiprocessing: every process sees the same memory."""
import torch
import torch.multiprocessing as mp

MORE = 1000.0


def host(value, count=1 << 18):
    return torch.full((count,), float(value))


def on_gpu(value, count=1 << 18):
    return host(value, count).cuda()


def produce(number, outgoing, back, done):
    sent = []
    for step in range(4):
        # Of large blocks, and of parts of a block that several tensors share.
        tensor = on_gpu(10 * number + step, 1 << (12 if step % 2 else 22))
        sent.append(tensor)
        outgoing.put((number, step, tensor[tensor.numel() // 2:]))
    for _ in range(4):
        back.get(timeout=60)
    outgoing.put((number, "seen", [(float(t[0]), float(t[-1])) for t in sent]))
    done.wait(60)


def main():
    context = mp.get_context("spawn")
    incoming, done = context.Queue(), context.Event()
    backs = [context.Queue() for _ in range(2)]
    producers = [context.Process(target=produce, args=(n, incoming, backs[n], done)) for n in range(2)]
    for process in producers:
        process.start()
    seen = {}
    for _ in range(10):
        number, step, value = incoming.get(timeout=120)
        if step == "seen":
            seen[number] = value
            continue
        assert value.is_cuda and bool((value.cpu() == 10 * number + step).all()), (number, step)
        value.copy_(value.cpu() + MORE)
        torch.cuda.synchronize()
        backs[number].put(step)
        del value
    assert seen == {n: [(10.0 * n + s, 10.0 * n + s + MORE) for s in range(4)] for n in range(2)}, seen
    done.set()
    for process in producers:
        process.join(60)
        assert process.exitcode == 0, process.exitcode
    print("tensor_queue passed", flush=True)


if __name__ == "__main__":
    main()
