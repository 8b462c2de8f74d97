"""What the programs beside this one have in common: calls whose results can be compared between processes.

    PROGRAM [--first N] [--samples N]        prints one line of JSON for each group of calls and each type
    PROGRAM --first N --times M              of that group alone, M times over, what its calls ever gave

Of each result the line has the digest of its bits and its norm; a call that fails gives its error instead. Prints "next N NAME"
before group N, so that whoever reads knows which one ended the process. It ends with 3 itself when the device is lost.
"""

import argparse
import hashlib
import itertools
import json
import sys
import warnings

import torch


def tensors(value):
    """All tensors in a result."""
    if torch.is_tensor(value):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [part for each in value for part in tensors(each)] if isinstance(value, (list, tuple)) else []


def gradients(result, arguments):
    """Of the sum of all results by those arguments that want one."""
    wanted = [tensor for tensor in tensors(arguments) if tensor.requires_grad]
    differentiable = [tensor for tensor in tensors(result) if tensor.requires_grad]
    if not wanted or not differentiable:
        return []
    ones = [torch.ones_like(each) for each in differentiable]
    found = torch.autograd.grad(differentiable, wanted, ones, allow_unused=True)
    return [gradient for gradient in found if gradient is not None]


def described(tensor):
    """[shape and type, digest of the bits, norm]."""
    tensor = tensor.detach()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    tensor = tensor.resolve_conj().resolve_neg().cpu()
    if tensor.is_quantized:
        tensor = tensor.int_repr()
    bits = tensor.clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8).numpy().tobytes()
    wide = torch.complex128 if tensor.is_complex() else torch.float64
    norm = torch.nan_to_num(tensor.to(wide), posinf=1e30, neginf=-1e30).norm().item()
    return [f"{tuple(tensor.shape)} {tensor.dtype}", hashlib.sha256(bits).hexdigest()[:16], norm]


def outcome(call):
    """What a call gives, described, or its error."""
    try:
        return [described(tensor) for tensor in call()]
    except Exception as error:  # noqa: BLE001 - whatever it is, native and remoted must agree on it
        return f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"


def is_lost():
    """Whether no call can succeed any more."""
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def main(groups, description):
    """Runs a program: `groups(most)` yields names, and for each type a function that gives outcomes of at most so many calls."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--times", type=int)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.zeros(1).cuda()
    for number, (name, types) in itertools.islice(enumerate(groups(arguments.samples)), arguments.first, None):
        print("next", number, name, flush=True)
        if arguments.times:
            for dtype, results in types.items():
                runs = [[json.dumps(outcome) for outcome in results()] for _ in range(arguments.times)]
                ever = [[json.loads(outcome) for outcome in sorted(set(sample))] for sample in zip(*runs)]
                print(json.dumps({"operator": name, "dtype": dtype, "ever": ever}), flush=True)
            return
        for dtype, results in types.items():
            print(json.dumps({"operator": name, "dtype": dtype, "results": results()}), flush=True)
            if is_lost():
                sys.exit(3)
