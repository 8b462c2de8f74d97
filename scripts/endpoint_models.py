"""The models that scripts/endpoint.py serves: what a request's payload becomes, what the model does with it, what is answered.

Any classifier of torchvision and BERT of transformers by name, with random weights where none are given; and models of this
file alone, which need PyTorch only.
"""

import base64
import binascii
import inspect
import io
import sys

import torch
from torch import nn
from torch.nn import functional

LONGEST = 512
BERT = {"bert_base_qa": (768, 12, 12), "bert_large_qa": (1024, 24, 16)}
# Width, layers, heads, heads of keys and values, inner width; the first is TinyLlama's.
LLAMA = {"llama_1b": (2048, 22, 32, 4, 5632), "llama_tiny": (128, 2, 4, 2, 256)}


class BadRequest(Exception):
    """The client's mistake, in words for it."""


def build(arguments):
    """The model that the flags ask for, on its device."""
    torch.manual_seed(arguments.seed)
    name = arguments.model
    if name == "weights":
        return Weights(arguments)
    if name == "small_llm":
        return LanguageModel(arguments)
    if name in LLAMA:
        return CachedLanguageModel(arguments)
    if name == "small_qa" or name in BERT:
        return SpanFinder(arguments)
    return Classifier(arguments)


def needs(library, instead):
    """A library, or the end of this process with what can be done."""
    try:
        return __import__(library)
    except ImportError:
        sys.exit(f"endpoint.py: this model needs {library}: pip install {library}, or take --model {instead}")


def ready(network, arguments):
    """A network with its weights, on its device."""
    if arguments.weights:
        network.load_state_dict(torch.load(arguments.weights, map_location="cpu", weights_only=True))
    return network.eval().requires_grad_(False).to(arguments.device)


def whole_numbers(values, below):
    """Token ids from JSON."""
    if not isinstance(values, list) or not 0 < len(values) <= LONGEST:
        raise BadRequest(f"tokens must be a list of 1 to {LONGEST} whole numbers")
    if not all(type(value) is int and 0 <= value < below for value in values):
        raise BadRequest(f"every token must be a whole number from 0 to {below - 1}")
    return torch.tensor([values])


class Weights:
    """No network: weights, of which a request reads one row back. Simulated GPUs run no kernels of PyTorch, but this."""

    def __init__(self, arguments):
        self.rows = torch.rand(arguments.mib, 1 << 18).to(arguments.device)

    def answer(self, payload):
        row = payload.get("row", 0)
        if type(row) is not int or not 0 <= row < len(self.rows):
            raise BadRequest(f"row must be a whole number from 0 to {len(self.rows) - 1}")
        return {"row": row, "sum": self.rows[row].cpu().sum().item()}


class SmallNetwork(nn.Module):
    """A convolutional network of 1.4 million parameters."""

    def __init__(self):
        super().__init__()
        layers, before = [], 3
        for after in (32, 64, 128, 256):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
            before = after
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.head = nn.Linear(1024, 1000)

    def forward(self, image):
        return self.head(self.features(image))


class Classifier:
    """An image in, the five likeliest classes out."""

    def __init__(self, arguments):
        self.device, name = arguments.device, arguments.model
        self.size = 299 if name == "inception_v3" else 224
        if name == "small_cnn":
            network = SmallNetwork()
        else:
            needs("torchvision", "small_cnn")
            from torchvision import models
            try:
                network = models.get_model(name, weights=None)
            except ValueError:
                sys.exit(f"endpoint.py: torchvision has no model {name}; torchvision.models.list_models() names them")
        self.network = ready(network, arguments)

    def image(self, payload):
        """A picture as the network takes it; a random one if none came, so that a load test needs none."""
        encoded = payload.get("image")
        if encoded is None:
            return torch.rand(1, 3, self.size, self.size)
        needs("PIL", "small_cnn without a picture")
        from PIL import Image
        try:
            picture = Image.open(io.BytesIO(base64.b64decode(encoded, validate=True)))
            picture = picture.convert("RGB").resize((self.size, self.size))
        except (binascii.Error, OSError, TypeError, ValueError, Image.DecompressionBombError) as error:
            raise BadRequest(f"image must be a picture in base64: {error}") from error
        pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
        pixels = pixels.view(self.size, self.size, 3).permute(2, 0, 1).float() / 255
        mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        return ((pixels - mean.view(3, 1, 1)) / deviation.view(3, 1, 1))[None]

    def answer(self, payload):
        likely = functional.softmax(self.network(self.image(payload).to(self.device))[0].float(), 0).topk(5)
        values, classes = torch.stack([likely.values.double(), likely.indices.double()]).cpu().tolist()
        return {"top5": [{"class": int(number), "probability": value} for number, value in zip(classes, values)]}


class Block(nn.Module):
    """Attention and a network for each token, as transformers have it."""

    def __init__(self, width, heads, causal):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.before_attention, self.before_network = nn.LayerNorm(width), nn.LayerNorm(width)
        self.projection, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.network = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens):
        batch, length, width = tokens.shape
        parts = self.projection(self.before_attention(tokens)).view(batch, length, 3, self.heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        tokens = tokens + self.out(seen.transpose(1, 2).reshape(batch, length, width))
        return tokens + self.network(self.before_network(tokens))


class SmallTransformer(nn.Module):
    """Token ids in, `outputs` numbers for each out."""

    def __init__(self, vocabulary, outputs, causal, width=256, blocks=6, heads=8):
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(LONGEST, width)
        self.blocks = nn.Sequential(*(Block(width, heads, causal) for _ in range(blocks)))
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, outputs))

    def forward(self, ids):
        return self.out(self.blocks(self.tokens(ids) + self.places.weight[: ids.shape[1]]))


class SpanFinder:
    """Tokens in, where among them the answer begins and ends out."""

    VOCABULARY = 30522

    def __init__(self, arguments):
        self.device, name = arguments.device, arguments.model
        if name == "small_qa":
            network = SmallTransformer(self.VOCABULARY, 2, causal=False)
        else:
            needs("transformers", "small_qa")
            from transformers import BertConfig, BertForQuestionAnswering
            width, layers, heads = BERT[name]
            network = BertForQuestionAnswering(BertConfig(hidden_size=width, num_hidden_layers=layers,
                                                          num_attention_heads=heads, intermediate_size=4 * width))
        self.network = ready(network, arguments)

    def answer(self, payload):
        if "tokens" in payload:
            tokens = whole_numbers(payload["tokens"], self.VOCABULARY)
        else:
            tokens = torch.randint(0, self.VOCABULARY, (1, 128))
        found = self.network(tokens.to(self.device))
        scores = found if torch.is_tensor(found) else torch.stack([found.start_logits, found.end_logits], -1)
        begins, ends = scores[0].float().cpu().unbind(-1)
        begin = begins.argmax().item()
        end = begin + ends[begin:].argmax().item()
        return {"begin": begin, "end": end, "tokens": tokens[0, begin : end + 1].tolist()}


class LanguageModel:
    """Text in, text out, a byte at a time. Without trained weights it babbles, at the cost of one that does not."""

    def __init__(self, arguments):
        self.device, self.name = arguments.device, arguments.model
        self.network = ready(self.build(), arguments)

    def build(self):
        """Its network, without weights of somebody's."""
        return SmallTransformer(256, 256, causal=True)

    def scores(self, ids, _):
        """Of each token, how well it comes next; and what makes the next one cheaper, which is nothing."""
        return self.network(torch.tensor([ids]).to(self.device))[0, -1], None

    @staticmethod
    def prompt(payload):
        """The text and how many tokens are wanted, of OpenAI's two kinds of request."""
        text, most = payload.get("prompt", ""), payload.get("max_tokens", 32)
        if "messages" in payload:
            messages = payload["messages"]
            if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
                raise BadRequest("messages must be a list of objects with role and content")
            text = "\n".join(str(message.get("content", "")) for message in messages)
        if not isinstance(text, str) or type(most) is not int or not 0 < most < LONGEST:
            raise BadRequest(f"prompt must be text, and max_tokens a whole number from 1 to {LONGEST - 1}")
        return (text.encode() or b"\n")[-(LONGEST - most):], most

    def tokens(self, payload):
        """The tokens' texts, each when it is there."""
        text, most = self.prompt(payload)
        ids, past = list(text), None
        for _ in range(most):
            scores, past = self.scores(ids, past)
            # Letters alone: whatever the weights are, it is text.
            token = 97 + scores[97:123].argmax().item()
            ids.append(token)
            yield chr(token)

    def answer(self, payload):
        text = "".join(self.tokens(payload))
        usage = {"completion_tokens": len(text)}
        return {"object": "text_completion", "model": self.name, "usage": usage,
                "choices": [{"index": 0, "text": text, "finish_reason": "length",
                             "message": {"role": "assistant", "content": text}}]}


class CachedLanguageModel(LanguageModel):
    """One of transformers, in bfloat16, that keeps the keys and values of what it has seen. Its tokens are bytes all the same."""

    def build(self):
        needs("transformers", "small_llm")
        from transformers import LlamaConfig, LlamaForCausalLM
        width, layers, heads, key_heads, inner = LLAMA[self.name]
        config = LlamaConfig(hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=key_heads,
                             intermediate_size=inner, vocab_size=32000, max_position_embeddings=2048)
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        try:
            # On the device at once: the weights are drawn there, in no time.
            with torch.device(self.device):
                return LlamaForCausalLM(config)
        finally:
            torch.set_default_dtype(before)

    def scores(self, ids, past):
        from transformers import DynamicCache
        new = torch.tensor([ids if past is None else ids[-1:]])
        past = DynamicCache() if past is None else past
        # As older ones of transformers 5 call it, and newer ones.
        known = inspect.signature(self.network.forward).parameters
        cache = {"cache" if "cache" in known else "past_key_values": past}
        step = self.network(new.to(self.device), use_cache=True, logits_to_keep=1, **cache)
        return step.logits[0, -1], past
