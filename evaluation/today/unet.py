"""A diffusion UNet of Stable Diffusion 1.5's shape (860 million parameters) in PyTorch alone: residual blocks that know the time step,
attention over the image and over a text, skips from the way down to the way up."""

import math

import torch
from torch import nn
from torch.nn import functional

GROUPS = 32


class Residual(nn.Module):
    def __init__(self, channels, out, time):
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(GROUPS, channels), nn.SiLU(), nn.Conv2d(channels, out, 3, padding=1))
        self.time = nn.Linear(time, out)
        self.second = nn.Sequential(nn.GroupNorm(GROUPS, out), nn.SiLU(), nn.Conv2d(out, out, 3, padding=1))
        self.past = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)

    def forward(self, image, time):
        return self.past(image) + self.second(self.first(image) + self.time(functional.silu(time))[:, :, None, None])


class Attention(nn.Module):
    def __init__(self, width, of, heads):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(size, width, bias=False) for size in (width, of, of))
        self.out = nn.Linear(width, width)

    def forward(self, tokens, of):
        def split(projected):
            return projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        seen = functional.scaled_dot_product_attention(split(self.query(tokens)), split(self.key(of)), split(self.value(of)))
        return self.out(seen.transpose(1, 2).flatten(2))


class Transformer(nn.Module):
    def __init__(self, width, text, heads):
        super().__init__()
        self.norm, self.enter, self.leave = nn.GroupNorm(GROUPS, width), nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.own, self.cross = Attention(width, width, heads), Attention(width, text, heads)
        self.widen, self.narrow = nn.Linear(width, 8 * width), nn.Linear(4 * width, width)

    def forward(self, image, text):
        tokens = self.enter(self.norm(image)).flatten(2).transpose(1, 2)
        normed = self.norms[0](tokens)
        tokens = tokens + self.own(normed, normed)
        tokens = tokens + self.cross(self.norms[1](tokens), text)
        value, gate = self.widen(self.norms[2](tokens)).chunk(2, dim=-1)
        tokens = tokens + self.narrow(value * functional.gelu(gate))
        return image + self.leave(tokens.transpose(1, 2).unflatten(2, image.shape[2:]))


class UNet(nn.Module):
    """`widths` are those of each resolution; all but the last have attention."""

    def __init__(self, widths=(320, 640, 1280, 1280), text=768, heads=8, blocks=2, channels=4):
        super().__init__()
        time, self.width = 4 * widths[0], widths[0]
        self.time = nn.Sequential(nn.Linear(widths[0], time), nn.SiLU(), nn.Linear(time, time))
        self.enter = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.down, self.up, skips, here = nn.ModuleList(), nn.ModuleList(), [widths[0]], widths[0]

        def layer(of, out, has_attention):
            return nn.ModuleList([Residual(of, out, time), *([Transformer(out, text, heads)] if has_attention else [])])

        for level, width in enumerate(widths):
            for _ in range(blocks):
                self.down.append(layer(here, width, level < len(widths) - 1))
                here = width
                skips.append(here)
            if level < len(widths) - 1:
                self.down.append(nn.ModuleList([nn.Conv2d(here, here, 3, stride=2, padding=1)]))
                skips.append(here)
        self.middle = nn.ModuleList([Residual(here, here, time), Transformer(here, text, heads), Residual(here, here, time)])
        for level, width in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                self.up.append(layer(here + skips.pop(), width, level < len(widths) - 1))
                here = width
            if level:
                self.up.append(nn.ModuleList([nn.Conv2d(here, here, 3, padding=1)]))
        self.leave = nn.Sequential(nn.GroupNorm(GROUPS, here), nn.SiLU(), nn.Conv2d(here, channels, 3, padding=1))

    def forward(self, image, step, text):
        half = self.width // 2
        angles = step.float()[:, None] * torch.exp(-math.log(10_000) * torch.arange(half, device=image.device) / half)[None]
        time = self.time(torch.cat([angles.cos(), angles.sin()], dim=-1).to(image.dtype))

        def through(layer, image):
            for part in layer:
                image = part(image, time) if isinstance(part, Residual) else part(image, text) if isinstance(part, Transformer) else part(image)
            return image

        image = self.enter(image)
        kept = [image]
        for layer in self.down:
            image = through(layer, image)
            kept.append(image)
        image = through(self.middle, image)
        for layer in self.up:
            if isinstance(layer[0], Residual):
                image = through(layer, torch.cat([image, kept.pop()], dim=1))
            else:
                image = through(layer, functional.interpolate(image, scale_factor=2.0))
        return self.leave(image)
