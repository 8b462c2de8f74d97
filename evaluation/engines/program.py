"""What LLM engines do, for run: a Llama with random weights, attention of any length, memory that sleeps and wakes.
Commands (../functions/answering.py):

    generate TOKENS    from a prompt of 32, greedily: {"ms", "first_ms", "sha256"}; the first one compiles what is compiled
    attention LENGTH   one scaled_dot_product_attention in bfloat16: {"ms"}
    prepare BYTES      so many bytes of weights that are mapped piece by piece, under a graph that names their addresses: {"bytes"}
    sleep, wake        gives them up, and takes them again at the same addresses with what they had: {"ms"}
    replay             the graph: {"ms", "sha256"}
"""

import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "functions"), str(HERE.parent)]
import answering  # noqa: E402 (first of all that may print)
import hashlib  # noqa: E402
import time  # noqa: E402

import torch  # noqa: E402
from virtual_memory import Mapped  # noqa: E402

PROMPT = 32
PIECE = 64 << 20
WIDTH = 4096


def digest(tensor):
    return hashlib.sha256(tensor.cpu().contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


def timed(work):
    """Milliseconds until the GPU has done it, and what it returned."""
    torch.cuda.synchronize()
    begin = time.perf_counter()
    result = work()
    torch.cuda.synchronize()
    return (time.perf_counter() - begin) * 1e3, result


def llama():
    """The shape of Llama 3.2 1B, with random weights, made on the GPU."""
    from transformers import LlamaConfig, LlamaForCausalLM
    config = LlamaConfig(hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32,
                         num_key_value_heads=8, vocab_size=128256, tie_word_embeddings=True)
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    # What the weights are hardly matters; the rotary frequencies are buffers that the configuration gives.
    rotary = type(model.model.rotary_emb)(config).to("cuda")
    model = model.to_empty(device="cuda").eval().requires_grad_(False)
    model.model.rotary_emb = rotary
    model.tie_weights()
    for parameter in model.parameters():
        parameter.uniform_(-0.03, 0.03)
    return model


class Engine:
    def __init__(self):
        torch.manual_seed(0)
        self.model, self.pieces, self.graph = None, [], None

    def generate(self, tokens):
        if self.model is None:
            self.model = llama()
        prompt = torch.arange(PROMPT, device="cuda").unsqueeze(0)

        def some(count):
            return self.model.generate(prompt, attention_mask=torch.ones_like(prompt), min_new_tokens=count, max_new_tokens=count,
                                       do_sample=False, pad_token_id=0)

        first_ms, _ = timed(lambda: some(1))
        ms, answer = timed(lambda: some(int(tokens)))
        return {"ms": first_ms + ms, "first_ms": first_ms, "sha256": digest(answer)}

    def attention(self, length):
        query = torch.randn(1, 32, int(length), 64, device="cuda", dtype=torch.bfloat16)
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.CUDNN_ATTENTION):
            ms, _ = timed(lambda: torch.nn.functional.scaled_dot_product_attention(query, query, query))
        return {"ms": ms}

    def prepare(self, total_bytes):
        rows = PIECE // WIDTH // 2
        weights = [torch.randn(rows, WIDTH, device="cuda", dtype=torch.bfloat16) / 64 for _ in range(int(total_bytes) // PIECE)]
        self.pieces = [Mapped(weight) for weight in weights]
        del weights
        torch.cuda.empty_cache()
        place, self.result = torch.randn(WIDTH, 16, device="cuda", dtype=torch.bfloat16), torch.empty(rows, 16, device="cuda", dtype=torch.bfloat16)

        def sums():
            self.result.copy_(sum(piece.tensor @ place for piece in self.pieces))

        sums()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            sums()
        # What is kept in page-locked memory needs no copy of its own.
        for piece in self.pieces:
            piece.keep_pinned()
        return {"bytes": sum(piece.bytes for piece in self.pieces)}

    def each(self, work):
        ms, _ = timed(lambda: [work(piece) for piece in self.pieces])
        return {"ms": ms}

    def replay(self):
        ms, _ = timed(self.graph.replay)
        return {"ms": ms, "sha256": digest(self.result)}


if __name__ == "__main__":
    with torch.no_grad():
        engine = Engine()
        torch.cuda.synchronize()
        answering.answer({"generate": engine.generate, "attention": engine.attention, "prepare": engine.prepare, "replay": engine.replay,
                          "sleep": lambda: engine.each(Mapped.sleep), "wake": lambda: engine.each(Mapped.wake)})
