"""One process that infers: batch 1, fp32 as PyTorch does it by default, random weights. It runs natively or remoted.

    program.py prepare FOLDER MODEL...   make models, inputs and the CPU's answers; needs no GPU
    program.py warm FOLDER [--inferences N] [--warm-up N] MODEL...   one line of JSON per model, with every inference's time
    program.py first FOLDER MODEL        the first inference of a new process
    program.py told FOLDER               does what it reads ("start MODEL", "infer N" or "end"), see functions/answering.py

An inference is: the input from the CPU's memory to the GPU, the model, the output back in the CPU's memory. "first" is the
time from before the weights' move to the GPU until the first output is back, of a process that has loaded everything but
has not touched CUDA. Of a warm inference its time, how much of it the thread had no CPU (both drivers' spinning uses it), and how
long the CPU needed for always the same work just before and after. The models are those of functions/models.py.
"""

import argparse
import json
import pathlib
import statistics
import sys
import time

import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "functions"))
import models  # noqa: E402

# Numbers that are added to see how fast the CPU is just now: some 60 µs.
YARDSTICK = 5000

SEED = 0


def prepare(folder, names):
    for name in names:
        model, data = models.build(name, SEED), models.example(name, SEED)
        with torch.no_grad():
            reference = models.output(model(data)).clone()
        part = folder / f"{name}.{time.time_ns()}.part"
        torch.save((model, data, reference), part)
        part.rename(folder / f"{name}.pt")


def load(folder, name):
    # Our own file, made by `prepare`. Into ordinary memory, as weights lie in a program that built or downloaded them.
    return torch.load(folder / f"{name}.pt", weights_only=False, mmap=False)


def started(name, folder):
    """A model on the GPU after its first inference: (infer, figures so far)."""
    model, data, reference = load(folder, name)

    def infer():
        return models.output(model(data.cuda())).cpu()

    begin = time.perf_counter()
    model = model.cuda()
    torch.cuda.synchronize()
    moved = time.perf_counter()
    answer = infer()
    end = time.perf_counter()
    error = ((answer - reference).norm() / reference.norm()).item()
    return infer, {"model": name, "to_cuda_ms": (moved - begin) * 1e3, "first_ms": (end - begin) * 1e3,
                   "rel_err_vs_cpu": error}


def yardstick():
    """Seconds that this thread's CPU needs just now for always the same work."""
    begin = time.perf_counter()
    sum(range(YARDSTICK))
    return time.perf_counter() - begin


def timed(infer, inferences):
    """Figures of so many inferences; of the yardstick before and after each, the longer one."""
    figures = {"times_ms": [], "off_cpu_ms": [], "yardstick_ms": []}
    before = yardstick()
    for _ in range(inferences):
        begin, begin_cpu = time.perf_counter(), time.thread_time()
        infer()
        end_cpu, end = time.thread_time(), time.perf_counter()
        after = yardstick()
        off_cpu = end - begin - (end_cpu - begin_cpu)
        for key, seconds in zip(figures, (end - begin, off_cpu, max(before, after))):
            figures[key].append(round(seconds * 1e3, 4))
        before = after
    return figures


def warm(folder, names, warm_up, inferences):
    for name in names:
        infer, figures = started(name, folder)
        timed(infer, warm_up)
        figures.update(timed(infer, inferences))
        figures["median_ms"] = statistics.median(figures["times_ms"])
        print(json.dumps(figures), flush=True)
        del infer
        torch.cuda.empty_cache()


def told(folder):
    import answering  # It takes standard output, which the other ways print to.
    under_way = []

    def start(name):
        infer, figures = started(name, folder)
        under_way.append(infer)
        return figures

    def end():
        under_way.clear()
        torch.cuda.empty_cache()
        return {}

    answering.answer({"start": start, "infer": lambda number: timed(under_way[0], int(number)), "end": end})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("prepare", "warm", "first", "told"))
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--inferences", type=int, default=100)
    parser.add_argument("--warm-up", type=int, default=10)
    arguments = parser.parse_args()
    if arguments.what == "prepare":
        prepare(arguments.folder, arguments.models)
        return
    with torch.no_grad():
        if arguments.what == "warm":
            warm(arguments.folder, arguments.models, arguments.warm_up, arguments.inferences)
        elif arguments.what == "told":
            told(arguments.folder)
        else:
            [name] = arguments.models
            print(json.dumps(started(name, arguments.folder)[1]), flush=True)


if __name__ == "__main__":
    main()
