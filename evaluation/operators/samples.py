"""Every operator that PyTorch has samples for (its own OpInfo database, some 700), called on the GPU. See calls.py."""

import itertools
import sys
import types
import unittest
import zlib

import torch
from calls import gradients, main, outcome, tensors

# The samples' module imports it for tests of PyTorch's own, and it is not part of an installation.
sys.modules.setdefault("expecttest", types.SimpleNamespace(TestCase=unittest.TestCase))
from torch.testing._internal.common_methods_invocations import op_db  # noqa: E402

DTYPES = (torch.float32, torch.bfloat16, torch.complex64, torch.int64)

# Results that PyTorch allocates and nobody writes: seed and offset of a dropout that is not wanted (aten/native/transformers/cuda/attention.cu).
UNWRITTEN = {"torch.ops.aten._efficient_attention_forward": (2, 3)}


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


def called(op, sample, seed):
    """What one call gives, and the gradients if any are wanted."""
    first, arguments, options = to_gpu(sample.input), to_gpu(list(sample.args)), to_gpu(sample.kwargs)
    torch.manual_seed(seed)
    result = op(first, *arguments, **options)
    if op.name in UNWRITTEN and not options.get("dropout_p"):
        result = [each for number, each in enumerate(result) if number not in UNWRITTEN[op.name]]
    return [*tensors(result), *gradients(result, [first, arguments, options])]


def results(op, dtype, most):
    """What the first samples give. They are made on the CPU from a seed of their own, so two runs call the same."""
    seed = zlib.crc32(f"{op.formatted_name} {dtype}".encode())
    torch.manual_seed(seed)
    with_gradient = dtype == torch.float32 and op.supports_autograd
    samples = itertools.islice(op.sample_inputs("cpu", dtype, requires_grad=with_gradient), most)
    return [outcome(lambda: called(op, sample, seed)) for sample in samples]


def groups(most):
    """All operators, each in all its types."""
    for op in op_db:
        dtypes = [dtype for dtype in DTYPES if dtype in op.supported_dtypes("cuda")]
        yield op.formatted_name, {str(dtype): lambda op=op, dtype=dtype: results(op, dtype, most) for dtype in dtypes}


if __name__ == "__main__":
    main(groups, __doc__)
