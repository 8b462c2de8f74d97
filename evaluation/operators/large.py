"""What PyTorch's libraries do with more than a few elements: other kernels, and other calls before them. See calls.py.

The samples of samples.py are small. cuBLAS asks for a stream's identity only from some size on, for instance.
"""

import itertools
import zlib

import torch
from calls import gradients, main, outcome, tensors
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

REAL = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
WITH_COMPLEX = (*REAL, torch.complex64)


def random(*shape, dtype=torch.float32):
    return torch.rand(*shape).to(dtype).cuda()


def matmul(dtype):
    for rows, columns, inner in itertools.product((1, 33, 128, 1024), (1, 32, 1000), (16, 65, 512, 4096)):
        yield lambda: random(rows, inner, dtype=dtype) @ random(inner, columns, dtype=dtype)
    for batch in 3, 64:
        yield lambda: torch.bmm(random(batch, 65, 33, dtype=dtype), random(batch, 33, 70, dtype=dtype))


def linear(dtype):
    for features in 64, 1024:
        model = nn.Sequential(nn.Linear(256, features), nn.GELU(), nn.Linear(features, 64)).cuda().to(dtype)
        yield lambda: with_gradients(model, random(32, 256, dtype=dtype))


def quantised(_):
    one = torch.ones(1).cuda()
    small = torch.randint(-5, 5, (64, 64), dtype=torch.int8).cuda()
    eighth = torch.rand(64, 64).to(torch.float8_e4m3fn).cuda()
    yield lambda: torch._int_mm(small, small)
    yield lambda: torch._scaled_mm(eighth, eighth.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16)


def with_gradients(model, *inputs):
    inputs = [each.requires_grad_() for each in inputs]
    result = model(*inputs)
    return [*tensors(result), *gradients(result, [inputs, list(model.parameters())])]


def algebra(function):
    def calls(dtype):
        for rows, batch in itertools.product((16, 32, 100, 512), ((), (2,), (9,))):
            # Far from singular, and positive definite.
            matrix = torch.rand(*batch, rows, rows, dtype=dtype)
            matrix = (matrix @ matrix.mT.conj() / rows + torch.eye(rows, dtype=dtype)).cuda()
            yield lambda: function(matrix)
    return calls


ALGEBRA = {
    "inv": torch.linalg.inv, "det": torch.linalg.det, "qr": torch.linalg.qr, "svdvals": torch.linalg.svdvals,
    "eigvalsh": torch.linalg.eigvalsh, "eigvals": torch.linalg.eigvals, "lu": torch.linalg.lu,
    "ldl_factor": torch.linalg.ldl_factor, "cholesky": torch.linalg.cholesky, "geqrf": torch.geqrf,
    "solve": lambda matrix: torch.linalg.solve(matrix, matrix.mT), "lstsq": lambda matrix: torch.linalg.lstsq(matrix, matrix)[0],
    "solve_triangular": lambda matrix: torch.linalg.solve_triangular(matrix, matrix, upper=True),
    "cholesky_inverse": torch.cholesky_inverse,
}


def convolution(dtype):
    kinds = (nn.Conv1d, nn.ConvTranspose1d), (nn.Conv2d, nn.ConvTranspose2d), (nn.Conv3d, nn.ConvTranspose3d)
    options = {}, {"stride": 2}, {"dilation": 2}, {"groups": 4}, {"groups": 16}
    for dimensions, kinds_of in enumerate(kinds, 1):
        for kind, option in itertools.product(kinds_of, options):
            model = kind(16, 32, 3, **option).cuda().to(dtype)
            yield lambda: with_gradients(model, random(2, 16, *[17] * dimensions, dtype=dtype))
    last = nn.Conv2d(64, 128, 3).cuda().to(dtype).to(memory_format=torch.channels_last)
    yield lambda: with_gradients(last, random(8, 64, 32, 32, dtype=dtype).to(memory_format=torch.channels_last))
    yield lambda: nn.Conv2d(3, 64, 7, 2, 3).cuda().to(dtype)(random(4, 3, 224, 224, dtype=dtype))


def normalisation(dtype):
    shapes = {nn.BatchNorm2d: (4, 8, 9, 9), nn.BatchNorm1d: (4, 8), nn.InstanceNorm2d: (2, 8, 7, 7), nn.LayerNorm: (64, 8),
              nn.RMSNorm: (33, 8)}
    for kind, shape in shapes.items():
        yield lambda: with_gradients(kind(8).cuda().to(dtype), random(*shape, dtype=dtype))
    yield lambda: with_gradients(nn.GroupNorm(2, 8).cuda().to(dtype), random(4, 8, 9, dtype=dtype))


def fourier(_):
    for length in 7, 64, 1000, 4097, 1 << 18:
        yield lambda: torch.fft.fft(random(length, dtype=torch.complex64))
        yield lambda: torch.fft.rfft(random(3, length))
        yield lambda: torch.fft.irfft(random(3, length, dtype=torch.complex64))
    yield lambda: torch.fft.fftn(random(16, 17, 18))
    yield lambda: torch.stft(random(4000), 400, return_complex=True)


def recurrent(dtype):
    options = {}, {"num_layers": 3}, {"bidirectional": True}
    for kind, width, option in itertools.product((nn.LSTM, nn.GRU, nn.RNN), (32, 512), options):
        model = kind(64, width, **option).cuda().to(dtype)
        yield lambda: with_gradients(model, random(20, 8, 64, dtype=dtype))


def attention(dtype):
    for backend, is_causal in itertools.product((SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH,
                                                 SDPBackend.CUDNN_ATTENTION), (False, True)):
        def call():
            with sdpa_kernel(backend):
                return scaled_dot_product_attention(*(random(2, 8, 256, 64, dtype=dtype) for _ in range(3)),
                                                    is_causal=is_causal)
        yield call


def sparse(_):
    matrix = (torch.rand(100, 100) > 0.9).float()
    for layout in torch.sparse_csr, torch.sparse_csc, torch.sparse_coo:
        yield lambda: matrix.to_sparse(layout=layout).cuda() @ random(100, 32)
    yield lambda: matrix.to_sparse_csr().cuda() @ matrix.to_sparse_csr().cuda()
    yield lambda: torch.eye(64).to_sparse_bsr(16).cuda() @ random(64, 32)


def sorting(_):
    for length in 10, 5000, 1 << 20:
        values = random(length)
        for name in "sort", "unique", "median", "mode", "nonzero", "argsort":
            yield lambda: getattr(values, name)()
        for name in "cumsum", "cummax", "logcumsumexp":
            yield lambda: getattr(values, name)(0)
        yield lambda: values.topk(5)


GROUPS = {
    "matmul": (matmul, WITH_COMPLEX), "linear": (linear, REAL), "quantised": (quantised, ("int8, float8",)),
    **{f"linalg {name}": (algebra(function), (torch.float32, torch.complex64)) for name, function in ALGEBRA.items()},
    "convolution": (convolution, REAL[:3]), "normalisation": (normalisation, REAL[:3]), "fourier": (fourier, ("float32",)),
    "recurrent": (recurrent, REAL[:2]), "attention": (attention, REAL[1:3]), "sparse": (sparse, ("float32",)),
    "sorting": (sorting, ("float32",)),
}


def results(name, calls, dtype):
    torch.manual_seed(zlib.crc32(f"{name} {dtype}".encode()))
    return [outcome(lambda: tensors(call())) for call in calls(dtype)]


def groups(_):
    for name, (calls, dtypes) in GROUPS.items():
        yield f"large {name}", {str(dtype): lambda name=name, calls=calls, dtype=dtype: results(name, calls, dtype)
                                for dtype in dtypes}


if __name__ == "__main__":
    main(groups, __doc__)
