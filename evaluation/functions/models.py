"""The models of the paper's Table 4 with random weights, made without the work that initialising them properly is.

What the weights are hardly matters, but all of them differ (equal 2 MiB are stored once, which must not flatter), depend on
the seed alone, and keep the numbers finite on the way through. "copy_only" stands in for a model where there is only a
simulated GPU: it has weights, and no kernels.
"""

import torch
from torch import nn

TOKENS = 512
STAND_IN = "copy_only"


class Copies(nn.Module):
    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.empty(16, 1 << 20))

    def forward(self, _):
        return self.weights[-1]


def _architecture(name):
    if name == STAND_IN:
        return Copies()
    if name == "bert_large_qa":
        from transformers import BertConfig, BertForQuestionAnswering
        return BertForQuestionAnswering(BertConfig(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16,
                                                   intermediate_size=4096))
    from torchvision import models
    options = {"init_weights": False, "aux_logits": True} if name == "inception_v3" else {}
    return getattr(models, name)(**options)


def build(name, seed):
    """The model on the CPU, ready to infer."""
    with torch.device("meta"):
        model = _architecture(name)
    model = model.to_empty(device="cpu").eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)

    def fill(tensor, least, most):
        tensor.uniform_(least, most, generator=generator)

    for key, parameter in model.named_parameters():
        if parameter.dim() > 1:
            bound = (6 / parameter[0].numel()) ** 0.5
            fill(parameter, -bound, bound)
        elif key.endswith("weight"):
            fill(parameter, 0.5, 1.5)
        else:
            fill(parameter, -0.1, 0.1)
    for key, buffer in model.named_buffers():
        match key.rsplit(".", 1)[-1]:
            case "running_mean":
                fill(buffer, -0.1, 0.1)
            case "running_var":
                fill(buffer, 0.5, 1.5)
            case "num_batches_tracked" | "token_type_ids":
                buffer.zero_()
            case "position_ids":
                buffer.copy_(torch.arange(buffer.numel()).view(buffer.shape))
            case _:
                raise ValueError(f"{name}: nobody has said what the buffer {key} begins with")
    return model


def example(name, seed):
    """An input, on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    if name == "bert_large_qa":
        return torch.randint(0, 30000, (1, TOKENS), generator=generator)
    size = 299 if name == "inception_v3" else 224
    return torch.randn(1, 3, size, size, generator=generator)


def output(answer):
    """The tensor of what a model returned."""
    return answer if torch.is_tensor(answer) else answer.start_logits


def weights_bytes(model):
    """Parameters and buffers."""
    return sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))
