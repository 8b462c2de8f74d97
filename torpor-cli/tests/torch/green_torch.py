"""PyTorch's green contexts. What its kernels compute is not looked at: on the simulated GPU they are skipped."""

import torch
from torch.cuda.green_contexts import GreenContext

torch.manual_seed(0)
numbers = torch.randn(64, 64)
there = numbers.cuda()
for multiprocessors in (16, 64, 8):
    context = GreenContext.create(num_sms=multiprocessors, device_id=0)
    for _ in range(2):
        context.set_context()
        # Its default stream comes behind what the program did before.
        copy = there.clone()
        back = copy.cpu()
        product = there @ there
        context.pop_context()
        torch.cuda.synchronize()
        assert product.shape == there.shape and torch.equal(back, numbers)
    if hasattr(context, "Stream"):
        stream = context.Stream()
        with torch.cuda.stream(stream):
            again = numbers.pin_memory().to("cuda", non_blocking=True)
        torch.cuda.current_stream().wait_stream(stream)
        assert torch.equal(again.cpu(), numbers)
    del context
assert torch.equal(there.cpu(), numbers)
print("green torch passed")
