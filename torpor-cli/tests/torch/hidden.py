"""CUDA_VISIBLE_DEVICES is honoured."""
import torch

assert not torch.cuda.is_available()
assert torch.cuda.device_count() == 0
print("hidden passed")
