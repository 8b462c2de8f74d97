"""Every operator that PyTorch has samples for (its own OpInfo database, some 700), called on the GPU.

    every.py [--first N] [--samples N] [--dtypes NAME,...]     prints one line of JSON per operator and type

Samples are made on the CPU from a seed of their own, so two runs call the same with the same. Of each result the line has the
digest of its bits and its norm, and the gradients' likewise; a call that fails gives its error instead. Prints "next N NAME"
before operator N, so that whoever reads knows which one ended the process. It ends with 3 itself when the device is lost.
"""

import argparse
import hashlib
import itertools
import json
import sys
import types
import unittest
import warnings
import zlib

import torch

# The samples' module imports it for tests of PyTorch's own, and it is not part of an installation.
sys.modules.setdefault("expecttest", types.SimpleNamespace(TestCase=unittest.TestCase))
from torch.testing._internal.common_methods_invocations import op_db  # noqa: E402

DTYPES = "float32,bfloat16,complex64,int64"


def to_gpu(value):
    """The same on the GPU, in containers too, and gradients wanted of what they were wanted of."""
    if torch.is_tensor(value):
        return value.detach().cuda().requires_grad_(value.requires_grad)
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)(to_gpu(part) for part in value)
    if isinstance(value, dict):
        return {key: to_gpu(part) for key, part in value.items()}
    if isinstance(value, torch.device) or value == "cpu":
        return "cuda"
    return value


def tensors(value):
    """All tensors in a result."""
    if torch.is_tensor(value):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [part for each in value for part in tensors(each)] if isinstance(value, (list, tuple)) else []


def described(tensor):
    """[shape and type, digest of the bits, norm]."""
    tensor = tensor.detach()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    tensor = tensor.resolve_conj().resolve_neg().cpu()
    if tensor.is_quantized:
        tensor = tensor.int_repr()
    bits = tensor.clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8).numpy().tobytes()
    digest = hashlib.sha256(bits).hexdigest()[:16]
    wide = torch.complex128 if tensor.is_complex() else torch.float64
    norm = torch.nan_to_num(tensor.to(wide), posinf=1e30, neginf=-1e30).norm().item()
    return [f"{tuple(tensor.shape)} {tensor.dtype}", digest, norm]


def called(op, sample, seed):
    """What one call gives."""
    arguments, options = to_gpu(list(sample.args)), to_gpu(sample.kwargs)
    first = to_gpu(sample.input)
    torch.manual_seed(seed)
    result = op(first, *arguments, **options)
    given = tensors(result)
    answer = [described(tensor) for tensor in given]
    wanted = [tensor for tensor in tensors([first, arguments, options]) if tensor.requires_grad]
    differentiable = [tensor for tensor in given if tensor.requires_grad]
    if wanted and differentiable:
        gradients = torch.autograd.grad(differentiable, wanted, [torch.ones_like(each) for each in differentiable],
                                        allow_unused=True)
        answer += [described(gradient) for gradient in gradients if gradient is not None]
    return answer


def results(op, dtype, most):
    """What the first samples give, each a list of results or an error."""
    seed = zlib.crc32(f"{op.formatted_name} {dtype}".encode())
    torch.manual_seed(seed)
    with_gradient = dtype == torch.float32 and op.supports_autograd
    found = []
    for sample in itertools.islice(op.sample_inputs("cpu", dtype, requires_grad=with_gradient), most):
        try:
            found.append(called(op, sample, seed))
        except Exception as error:  # noqa: BLE001 - whatever it is, native and remoted must agree on it
            found.append(f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}")
            if is_lost():
                break
    return found


def is_lost():
    """Whether no call can succeed any more."""
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--dtypes", default=DTYPES)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.zeros(1).cuda()
    for number, op in enumerate(op_db[arguments.first:], arguments.first):
        print("next", number, op.formatted_name, flush=True)
        for name in arguments.dtypes.split(","):
            dtype = getattr(torch, name)
            if dtype in op.supported_dtypes("cuda"):
                found = results(op, dtype, arguments.samples)
                print(json.dumps({"operator": op.formatted_name, "dtype": name, "results": found}), flush=True)
                if is_lost():
                    sys.exit(3)


if __name__ == "__main__":
    main()
