"""Programs whose state lives on the GPU: each step's answer depends on what all steps before left there.

    workloads.py lstm | gpt2 | half | train | expandable | sleep | jax | partners | profiled

A step (the command `step` of ../functions/answering.py) gives the sha256 of the step's outputs and of the whole state.
Every number is determined: seeds, and algorithms that give the same bits each time.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "functions"))
import answering  # noqa: E402 (first of all that may print)
import argparse  # noqa: E402
import hashlib  # noqa: E402
import os  # noqa: E402
import time  # noqa: E402

os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
os.environ["XLA_FLAGS"] = "--xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0"
if "expandable" in sys.argv:
    os.environ["PYTORCH_ALLOC_CONF"] = os.environ["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"
import torch  # noqa: E402
from torch import nn  # noqa: E402


def digest(*tensors):
    """Of tensors anywhere, in this order."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


class Lstm:
    """The state of a recurrent network stays on the GPU between its steps."""

    def __init__(self, device):
        self.device = device
        self.lstm = nn.LSTM(256, 512, 2).to(device)
        self.state = tuple(torch.zeros(2, 8, 512, device=device) for _ in range(2))

    @torch.no_grad()
    def step(self):
        output, self.state = self.lstm(torch.randn(1, 8, 256).to(self.device), self.state)
        return digest(output, *self.state)


class Gpt2:
    """A generation: the keys and values of all tokens so far stay on the GPU, and so does the last token."""

    def __init__(self, device):
        from transformers import GPT2Config, GPT2LMHeadModel
        self.model = GPT2LMHeadModel(GPT2Config()).eval().to(device)
        self.token = torch.randint(0, 50000, (1, 16)).to(device)
        self.past = None

    @torch.no_grad()
    def step(self):
        answer = self.model(input_ids=self.token, past_key_values=self.past, use_cache=True)
        self.past = answer.past_key_values
        self.token = answer.logits[:, -1:].argmax(-1)
        layers = [tensor for layer in self.past.layers for tensor in (layer.keys, layer.values)]
        return digest(answer.logits[:, -1], self.token, *layers)


class Half:
    """Weights that only a kernel has written: they were cast to half precision on the GPU."""

    def __init__(self, device):
        self.device = device
        blocks = [nn.Sequential(nn.Linear(1024, 4096), nn.GELU(), nn.Linear(4096, 1024), nn.LayerNorm(1024)) for _ in range(4)]
        self.model = nn.Sequential(*blocks).to(device).half()

    @torch.no_grad()
    def step(self):
        output = self.model(torch.randn(4, 1024).to(self.device).half())
        return digest(output, *self.model.parameters())


class Train:
    """Weights, gradients, statistics of batches and both moments of Adam."""

    def __init__(self, device):
        self.device = device
        self.model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3, 2), nn.ReLU(),
                                   nn.Flatten(), nn.Linear(32 * 14 * 14, 10)).to(device)
        self.optimiser = torch.optim.Adam(self.model.parameters(), 1e-3)

    def step(self):
        data, labels = torch.randn(16, 3, 32, 32).to(self.device), torch.randint(0, 10, (16,)).to(self.device)
        self.optimiser.zero_grad(set_to_none=False)
        loss = nn.functional.cross_entropy(self.model(data), labels)
        loss.backward()
        self.optimiser.step()
        moments = [moment for state in self.optimiser.state.values() for moment in (state["exp_avg"], state["exp_avg_sq"])]
        gradients = [parameter.grad for parameter in self.model.parameters()]
        return digest(loss, *self.model.state_dict().values(), *gradients, *moments)


class Sleep:
    """Weights in memory that is unmapped and mapped again in every step."""

    def __init__(self, device):
        sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
        from virtual_memory import Mapped
        self.weights = [Mapped(torch.randn(512, 512).to(device) / 16) for _ in range(6)]
        self.state = torch.randn(8, 512).to(device)

    @torch.no_grad()
    def step(self):
        for weight in self.weights[::2]:
            weight.sleep()
        for weight in self.weights[::2]:
            weight.wake()
        for weight in self.weights:
            self.state = torch.tanh(self.state @ weight.tensor)
            weight.tensor.add_(self.state.mean() / 1024)
        return digest(self.state, *(weight.tensor for weight in self.weights))


class Jax:
    """The weights of a transformer that JAX trains, in memory that XLA maps itself."""

    def __init__(self, _):
        sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "conformance"))
        import jax_workloads
        self.jax, self.workload = jax_workloads.jax, jax_workloads
        self.model = jax_workloads.initial(self.jax.random.key(0), 64, 2, 50)
        self.steps = 0

    def step(self):
        tokens = self.jax.random.randint(self.jax.random.key(self.steps), (8, 33), 0, 50)
        self.model, loss = self.workload.train_step(self.model, tokens)
        self.steps += 1
        total = hashlib.sha256()
        for leaf in self.jax.tree.leaves((loss, self.model)):
            total.update(self.workload.numpy.asarray(leaf).tobytes())
        return total.hexdigest()


def partner(numbers, done):
    """Another process, whose steps go on with what the first one left in the memory that both have."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    state = numbers.get()
    torch.manual_seed(1)
    weight = (torch.randn(512, 512) / 23).cuda()
    for _ in iter(numbers.get, None):
        state.copy_(torch.tanh(state @ weight))
        torch.cuda.synchronize()
        done.put(True)


class Partners:
    """Memory of two processes, of which each goes on with what the other has left there."""

    def __init__(self, device):
        context = torch.multiprocessing.get_context("spawn")
        self.numbers, self.done = context.Queue(), context.Queue()
        self.partner = context.Process(target=partner, args=(self.numbers, self.done), daemon=True)
        self.partner.start()
        self.weight = (torch.randn(512, 512) / 23).to(device)
        self.state = torch.randn(512, 512).to(device)
        self.numbers.put(self.state)

    def step(self):
        self.state.add_(self.state @ self.weight)
        torch.cuda.synchronize()
        self.numbers.put(True)
        self.done.get(timeout=60)
        return digest(self.state, self.weight)


class Profiled:
    """A profiler that is on for two steps at a time, and so while the memory leaves between them: the state, and the kernels it saw."""

    def __init__(self, device):
        self.weight, self.state = (torch.randn(512, 512) / 23).to(device), torch.randn(512, 512).to(device)
        self.profile, self.names = None, []

    def step(self):
        from torch.profiler import ProfilerActivity, profile
        is_first = self.profile is None
        # PyTorch leaves out what does not lie within the profile, and the clocks of host and GPU may differ a little.
        if is_first:
            self.profile = profile(activities=[ProfilerActivity.CUDA])
            self.profile.start()
            time.sleep(0.05)
        self.state = torch.tanh(self.state @ self.weight)
        torch.cuda.synchronize()
        if not is_first:
            time.sleep(0.05)
            self.profile.stop()
            self.names.append(self.kernels())
            self.profile = None
        return hashlib.sha256((digest(self.state, self.weight) + repr(self.names)).encode()).hexdigest()

    def kernels(self):
        """The names of the kernels of both steps, which are the same."""
        seen = [event for event in self.profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
        seen = [event for event in seen if not event.name.startswith(("Memcpy", "Memset"))]
        names = [event.name for event in sorted(seen, key=lambda event: event.time_range.start)]
        half = len(names) // 2
        if not names or names != 2 * names[:half]:
            raise RuntimeError(f"two steps of the same are {names}")
        return names


class Copies:
    """Without kernels, for the simulated GPU: a piece of a buffer changes with each step."""

    def __init__(self, device):
        self.buffer = torch.zeros(1 << 20).to(device)
        self.steps = 0

    def step(self):
        begin = self.steps % 16 << 16
        self.buffer[begin:begin + 1000].copy_(torch.randn(1000))
        self.steps += 1
        return digest(self.buffer)


WORKLOADS = {"lstm": Lstm, "gpt2": Gpt2, "half": Half, "train": Train, "expandable": Train, "sleep": Sleep, "jax": Jax,
             "partners": Partners, "profiled": Profiled, "copies": Copies}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("--device", default="cuda", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Memory that nobody has written is nobody's result.
    torch.utils.deterministic.fill_uninitialized_memory = False
    workload = WORKLOADS[given.workload](given.device)
    answering.answer({"step": lambda: {"sha256": workload.step()}}, workload=given.workload)
