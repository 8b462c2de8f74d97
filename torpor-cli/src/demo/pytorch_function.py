"""The network `mlp` of network.rs in PyTorch, served to `torpor demo` by the lines of protocol.rs.

usage: python3 -c SCRIPT SEED ROWS COLUMNS ENTRIES TENSOR...    where TENSOR is elements:center:spread

Knows nothing of Torpor. Weights and requests follow from seeds by the numbers of random.rs, so that the same
reference tells whether the answers are right.
"""
import sys
import warnings

import torch

# What is known of GPUs without CUDA, through NVML, does not reach a program under Torpor; it is not needed either.
warnings.filterwarnings("ignore", message=".*nvml.*")

STEP = 0x9E3779B97F4A7C15


def signed(number):
    """As an int64 tensor holds it; its arithmetic wraps."""
    return number - (1 << 64) if number >> 63 else number


def shift_right(z, bits):
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def mix(z):
    z = (z ^ shift_right(z, 30)) * signed(0xBF58476D1CE4E5B9)
    z = (z ^ shift_right(z, 27)) * signed(0x94D049BB133111EB)
    return z ^ shift_right(z, 31)


def numbers(seed, sequence, count):
    start = mix(mix(torch.tensor(signed(seed))) + sequence)
    return mix(start + torch.arange(1, count + 1) * signed(STEP))


def uniform(seed, sequence, count):
    return shift_right(numbers(seed, sequence, count), 40).to(torch.float32) / (1 << 23) - 1.0


def say(*words):
    print(*words, flush=True)


def main():
    seed, rows, columns, entries = map(int, sys.argv[1:5])
    device = torch.device("cuda")
    torch.backends.cuda.matmul.allow_tf32 = False
    weights, loaded = [], 0
    for index, text in enumerate(sys.argv[5:]):
        elements, center, spread = text.split(":")
        values = uniform(seed, index, int(elements)) * float(spread) + float(center)
        weights.append(values.to(device))
        loaded += values.nbytes
        say("loaded", loaded)
    table, first, first_bias, second, second_bias, gamma, beta, last = weights
    table, first, second = table.view(entries, columns), first.view(columns, -1), second.view(columns, -1)
    last = last.view(columns, -1)

    def network(x, chosen):
        x = x + table[chosen]
        x = torch.relu(x @ first + first_bias)
        x = torch.relu(x @ second + second_bias)
        x = torch.nn.functional.layer_norm(x, (columns,), gamma, beta, eps=1e-5)
        return torch.softmax(x @ last, dim=1)

    def answer(request):
        x = uniform(request, 0, rows * columns).view(rows, columns)
        chosen = shift_right(numbers(request, 1, rows), 33) % entries
        return network(x.to(device), chosen.to(device)).cpu()

    # The first request makes PyTorch load its libraries.
    answer(0)
    began, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    say("ready")
    for line in sys.stdin:
        request = int(line)
        began.record()
        out = answer(request)
        ended.record()
        ended.synchronize()
        bits = out.contiguous().view(torch.int32).flatten().tolist()
        say("answer", request, int(began.elapsed_time(ended) * 1e3), *(f"{b & 0xFFFFFFFF:08x}" for b in bits))


try:
    with torch.inference_mode():
        main()
except Exception as error:
    say("failed", " ".join(f"{type(error).__name__}: {error}".split()))
    sys.exit(1)
