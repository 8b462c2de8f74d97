"""cuDNN's attention with lengths that this process has not seen: attention.py LENGTH... Prints how many there were."""

import sys

import torch

lengths = [int(word) for word in sys.argv[1].split(";")]
with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.CUDNN_ATTENTION):
    for length in lengths:
        query, keys = (torch.zeros(1, 32, rows, 64, device="cuda", dtype=torch.bfloat16) for rows in (1, length))
        torch.nn.functional.scaled_dot_product_attention(query, keys, keys)
torch.cuda.synchronize()
print(len(lengths))
