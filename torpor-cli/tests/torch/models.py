"""Every library under PyTorch at work, and inferences of a small ResNet between two marks, with all kernels skipped.

What is computed is garbage and not looked at; that every call succeeds is what counts, and what the shim's log says.
"""
import ctypes
import os
import torch
from torch import distributed, nn

INFERENCES = 20


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
                                   nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x):
        return torch.relu(x + self.inner(x))


def network():
    return nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3), nn.MaxPool2d(3, 2, 1), *(Block(64) for _ in range(4)),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def libraries():
    matrix, batch = torch.rand(32, 32).cuda(), torch.rand(4, 8, 32).cuda()
    for dtype in torch.float32, torch.bfloat16, torch.complex64:
        matrix.to(dtype) @ matrix.to(dtype)                                             # cuBLAS, cuBLASLt
    torch.fft.irfft(torch.fft.rfft(batch))                                              # cuFFT
    torch.linalg.solve_triangular(matrix, batch[0].T.contiguous(), upper=True)          # cuBLAS
    torch.linalg.qr(matrix)                                                             # cuSOLVER
    torch.sparse_csr_tensor([0, 1, 2], [0, 1], [1.0, 1.0]).cuda() @ torch.rand(2, 3).cuda()  # cuSPARSE
    torch.rand(100, device="cuda").sort()
    nn.functional.scaled_dot_product_attention(batch.half(), batch.half(), batch.half())
    for module in nn.LSTM(32, 16, batch_first=True), nn.TransformerEncoderLayer(32, 4, batch_first=True):  # cuDNN and others
        outcome = module.cuda()(batch)
        (outcome[0] if isinstance(outcome, tuple) else outcome).sum().backward()
    model = network().cuda()
    optimizer = torch.optim.Adam(model.parameters())
    with torch.autocast("cuda"):
        model(torch.rand(2, 3, 64, 64).cuda()).sum().backward()
    optimizer.step()
    graph, static = torch.cuda.CUDAGraph(), torch.rand(2, 3, 64, 64).cuda()
    with torch.no_grad(), torch.cuda.graph(graph):
        model(static)
    graph.replay()
    torch.cuda.synchronize()


def group_of_one():
    os.environ["NCCL_SOCKET_IFNAME"] = "lo"
    distributed.init_process_group("nccl", store=distributed.HashStore(), rank=0, world_size=1)
    distributed.all_reduce(torch.rand(100).cuda())
    model = nn.parallel.DistributedDataParallel(nn.Linear(8, 8).cuda())
    model(torch.rand(4, 8).cuda()).sum().backward()
    torch.cuda.synchronize()
    distributed.destroy_process_group()


def steady():
    model, image = network().eval().cuda(), torch.rand(1, 3, 64, 64)
    driver = ctypes.CDLL("libcuda.so.1")
    with torch.no_grad():
        for number in range(5 + INFERENCES):
            if number == 5:
                driver.cuProfilerStart()
            model(image.cuda()).cpu()
    driver.cuProfilerStop()


libraries()
group_of_one()
steady()
print("models passed", INFERENCES)
