"""What people serve: models of today's shapes, made from their configurations, with random weights."""

import importlib.util

import torch

# What each is made with, and in which precision it is served.
LIBRARY = {"llama_1b": "transformers", "llama_8b": "transformers", "whisper": "transformers", "vit_l": "timm", "unet": "torch"}
DTYPES = {"llama_1b": torch.bfloat16, "llama_8b": torch.bfloat16, "whisper": torch.bfloat16, "vit_l": torch.float16, "unet": torch.float16}
PROMPT = 128


def is_there(name):
    """Whether it can be made here."""
    return importlib.util.find_spec(LIBRARY[name]) is not None


def architecture(name, tiny):
    """Without weights' values. `tiny` has the same layers, few and narrow."""
    if name == "unet":
        from unet import UNet
        return UNet(widths=(32, 64), text=64, heads=2, blocks=1) if tiny else UNet()
    if name == "vit_l":
        import timm
        return timm.create_model("vit_large_patch16_224", **({"embed_dim": 64, "depth": 2, "num_heads": 2} if tiny else {}))
    if name == "whisper":
        from transformers import WhisperConfig, WhisperForConditionalGeneration
        width, layers, heads = (64, 1, 2) if tiny else (1280, 32, 20)
        return WhisperForConditionalGeneration(WhisperConfig(
            d_model=width, encoder_layers=layers, decoder_layers=layers, encoder_attention_heads=heads, decoder_attention_heads=heads,
            encoder_ffn_dim=4 * width, decoder_ffn_dim=4 * width, num_mel_bins=128, vocab_size=51866))
    from transformers import LlamaConfig, LlamaForCausalLM
    sizes = {"llama_1b": (2048, 8192, 16, True), "llama_8b": (4096, 14336, 32, False)}
    width, inner, layers, tied = (128, 256, 2, True) if tiny else sizes[name]
    heads = 4 if tiny else 32
    return LlamaForCausalLM(LlamaConfig(hidden_size=width, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads,
                                        num_key_value_heads=heads // 4, vocab_size=128256 if not tiny else 512, tie_word_embeddings=tied))


def build(name, tiny):
    """On the CPU, with nobody's weights."""
    with torch.device("meta"):
        model = architecture(name, tiny).to(DTYPES[name])
    model = model.to_empty(device="cpu").eval().requires_grad_(False)
    if name.startswith("llama"):
        # The rotary frequencies are buffers that the configuration gives.
        model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
    if hasattr(model, "tie_weights"):
        model.tie_weights()
    return model


def fill(model, seed):
    """Weights that keep numbers finite, and differ everywhere."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in dict.fromkeys(model.parameters()):
        bound = (3 / parameter[0].numel()) ** 0.5 if parameter.dim() > 1 else 1.0
        parameter.copy_(torch.empty(parameter.shape, dtype=torch.float32).uniform_(-bound, bound, generator=generator))


def first(name, model, tiny):
    """What gives the first token of an answer, or of what has none: the answer, or its first step."""
    generator = torch.Generator().manual_seed(1)
    dtype = DTYPES[name]

    def noise(*shape):
        return torch.randn(*shape, generator=generator).to(dtype)

    if name == "unet":
        size = 8 if tiny else 64
        inputs = noise(1, 4, size, size), torch.tensor([500]), noise(1, 77, 64 if tiny else 768)
        return lambda: model(*(one.cuda() for one in inputs)).cpu()
    if name == "vit_l":
        image = noise(1, 3, 224, 224)
        return lambda: model(image.cuda()).cpu()
    if name == "whisper":
        sound, begin = noise(1, 128, 3000), torch.tensor([[50258]])
        return lambda: model(input_features=sound.cuda(), decoder_input_ids=begin.cuda(), use_cache=False).logits[:, -1].argmax(-1).cpu()
    prompt = torch.randint(0, 500, (1, PROMPT), generator=generator)
    return lambda: model(prompt.cuda(), use_cache=False, logits_to_keep=1).logits[:, -1].argmax(-1).cpu()
