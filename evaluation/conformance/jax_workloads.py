"""Workloads of JAX, each checked against NumPy or against itself. The same program runs natively and through Torpor.

    jax_workloads.py jax | jax_train | jax_two
"""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy


def basics():
    # Compiled functions, derivatives, donated buffers, page-locked memory.
    device = jax.devices("gpu")[0]
    a = jnp.arange(512 * 512, dtype=jnp.float32).reshape(512, 512) % 13
    right = numpy.asarray(a)
    product = jax.jit(lambda x, y: jnp.matmul(x, y, precision="highest"))(a, a)
    assert numpy.array_equal(numpy.asarray(product), right @ right)
    slope = jax.grad(lambda x: (x ** 3).sum())(a)
    assert numpy.allclose(numpy.asarray(slope), 3 * right ** 2)
    step = jax.jit(lambda state, x: state + x, donate_argnums=0)
    state = jnp.zeros((1 << 22,), dtype=jnp.float32)
    first = state
    for _ in range(10):
        state = step(state, jnp.ones_like(state))
    assert first.is_deleted() and float(state.sum()) == 10.0 * (1 << 22)
    host = jax.device_put(a, jax.sharding.SingleDeviceSharding(device, memory_kind="pinned_host"))
    back = jax.device_put(host, jax.sharding.SingleDeviceSharding(device, memory_kind="device"))
    assert host.sharding.memory_kind == "pinned_host" and bool((back == a).all())
    values, vectors = jnp.linalg.eigh(a + a.T)
    assert numpy.allclose(numpy.asarray(vectors @ jnp.diag(values) @ vectors.T), right + right.T, atol=0.5)
    limit = device.memory_stats()["bytes_limit"]
    print(f"JAX preallocates {limit >> 20} MiB")


def initial(key, width, layers, words):
    """Weights of a small transformer."""
    def weights(*shape):
        nonlocal key
        key, part = jax.random.split(key)
        return jax.random.normal(part, shape) / jnp.sqrt(shape[0])
    blocks = [{"qkv": weights(width, 3 * width), "out": weights(width, width), "up": weights(width, 4 * width),
               "down": weights(4 * width, width)} for _ in range(layers)]
    return {"words": weights(words, width), "blocks": blocks}


def forward(model, tokens, heads=4):
    def normal(x):
        return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)
    x = model["words"][tokens]
    length, width = x.shape[-2:]
    mask = jnp.tril(jnp.ones((length, length), bool))
    for block in model["blocks"]:
        query, key, value = (part.reshape(*part.shape[:-1], heads, width // heads)
                             for part in jnp.split(normal(x) @ block["qkv"], 3, -1))
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / jnp.sqrt(width // heads)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(jnp.where(mask, scores, -1e9)), value)
        x = x + mixed.reshape(x.shape) @ block["out"]
        x = x + jax.nn.gelu(normal(x) @ block["up"]) @ block["down"]
    return normal(x) @ model["words"].T


def loss(model, tokens):
    chances = jax.nn.log_softmax(forward(model, tokens[:, :-1]))
    return -jnp.take_along_axis(chances, tokens[:, 1:, None], -1).mean()


@jax.jit
def train_step(model, tokens):
    value, slopes = jax.value_and_grad(loss)(model, tokens)
    return jax.tree.map(lambda weight, slope: weight - 0.1 * slope, model, slopes), value


def train(steps=60):
    # A training loop learns to repeat; twice the same gives the same bits.
    def run():
        model = initial(jax.random.key(0), 64, 2, 50)
        tokens = jnp.tile(jnp.arange(33) * 7 % 50, (8, 1))
        values = []
        for _ in range(steps):
            model, value = train_step(model, tokens)
            values.append(value)
        return numpy.asarray(jnp.stack(values))
    first = run()
    assert first[-1] < 0.5 * first[0], first
    assert numpy.array_equal(first, run())
    print(f"loss {first[0]:.3f} to {first[-1]:.3f}")


def two():
    # Two processes beside each other, each with what JAX takes by itself.
    others = [subprocess.Popen([sys.executable, __file__, "jax_train"]) for _ in range(2)]
    assert [other.wait() for other in others] == [0, 0]


if __name__ == "__main__":
    os.environ.setdefault("XLA_FLAGS", "--xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0")
    {"jax": basics, "jax_train": train, "jax_two": two}[sys.argv[1]]()
    print(f"{sys.argv[1]} passed")
