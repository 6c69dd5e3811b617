"""Training steps by PyTorch or JAX: train_peer.py torch|jax w1|w2|w3|w4|w4b1 THREADS STEPS. The output of `train_steps`."""

import json
import os
import sys
import time

START = time.time()
ENGINE, WORK, THREADS, STEPS = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
WIDE = [784, 512, 256, 10]
WIDTHS, BATCH, METHOD = {
    "w1": ([2, 32, 32, 2], 64, "adam"),
    "w2": ([784, 128, 10], 64, "sgd"),
    "w3": (WIDE, 128, "adamw"),
    "w4": (WIDE, 128, None),
    "w4b1": (WIDE, 1, None),
}[WORK]

import numpy as np


def begin(n, inputs):
    """What a layer begins with: the same in every engine."""
    numbers = (np.arange(n, dtype=np.uint64) * 2654435761 % 2**32).astype(np.float64)
    return ((numbers / 2**32 * 2 - 1) / np.sqrt(inputs)).astype(np.float32)


X = (((np.arange(BATCH * WIDTHS[0]) * 37 % 255) / np.float32(255)) - np.float32(0.5)).astype(np.float32)
X = X.reshape(BATCH, WIDTHS[0])
LABELS = np.arange(BATCH) % WIDTHS[-1]


def median_of_parts(run):
    """run(n) makes n steps and returns the last loss; the median of ten parts."""
    part = max(1, -(-(STEPS - 2) // 10))
    times, loss = [], None
    for _ in range(10):
        start = time.perf_counter()
        loss = run(part)
        times.append((time.perf_counter() - start) * 1e6 / part)
    times.sort()
    return (times[4] + times[5]) / 2, loss


def torch_run():
    import torch
    from torch import nn

    torch.set_num_threads(THREADS)
    layers = []
    for inputs, outputs in zip(WIDTHS, WIDTHS[1:]):
        layer = nn.Linear(inputs, outputs)
        layer.weight.data = torch.from_numpy(begin(inputs * outputs, inputs)).reshape(outputs, inputs)
        layer.bias.data = torch.from_numpy(begin(outputs, inputs))
        layers += [layer, nn.ReLU()]
    net = nn.Sequential(*layers[:-1])
    x, labels = torch.from_numpy(X), torch.from_numpy(LABELS)
    params = net.parameters()
    optimizer = {
        "adam": lambda: torch.optim.Adam(params, 1e-3, fused=True),
        "adamw": lambda: torch.optim.AdamW(params, 1e-3, weight_decay=0.01, fused=True),
        "sgd": lambda: torch.optim.SGD(params, 0.01, momentum=0.9, fused=True),
        None: lambda: None,
    }[METHOD]()

    def steps(n):
        for _ in range(n):
            if optimizer is None:
                with torch.inference_mode():
                    loss = nn.functional.cross_entropy(net(x), labels).item()
                continue
            optimizer.zero_grad()
            value = nn.functional.cross_entropy(net(x), labels)
            value.backward()
            optimizer.step()
            loss = value.item()
        return loss

    steps(1)
    first = time.time()
    steps(1)
    return first, *median_of_parts(steps)


def jax_run():
    if THREADS == 1:
        os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    import jax
    import jax.numpy as jnp

    x, labels = jnp.asarray(X), jnp.asarray(LABELS)
    params = []
    for inputs, outputs in zip(WIDTHS, WIDTHS[1:]):
        params.append((jnp.asarray(begin(inputs * outputs, inputs).reshape(outputs, inputs).T.copy()),
                       jnp.asarray(begin(outputs, inputs))))

    def loss_of(params):
        h = x
        for i, (w, b) in enumerate(params):
            h = h @ w + b
            if i + 1 < len(params):
                h = jax.nn.relu(h)
        return -jnp.take_along_axis(jax.nn.log_softmax(h), labels[:, None], 1).mean()

    zeros = jax.tree.map(jnp.zeros_like, params)

    def step(state, _):
        params, m, v, t = state
        loss, gradients = jax.value_and_grad(loss_of)(params)
        t = t + 1
        if METHOD == "sgd":
            m = jax.tree.map(lambda m, g: 0.9 * m + g, m, gradients)
            params = jax.tree.map(lambda p, m: p - 0.01 * m, params, m)
        else:
            keep = 1 - 1e-3 * 0.01 if METHOD == "adamw" else 1.0
            m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, gradients)
            v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, gradients)
            rate, root = 1e-3 / (1 - 0.9**t), 1 / jnp.sqrt(1 - 0.999**t)
            params = jax.tree.map(lambda p, m, v: p * keep - rate * m / (jnp.sqrt(v) * root + 1e-8), params, m, v)
        return (params, m, v, t), loss

    part = max(1, -(-(STEPS - 2) // 10))
    if METHOD is None:
        forward = jax.jit(loss_of)

        def steps(n):
            for _ in range(n):
                loss = float(forward(params))
            return loss

        steps(1)
        first = time.time()
        return first, *median_of_parts(steps)

    one = jax.jit(lambda state: step(state, None))
    # The whole loop compiled, the losses read at its end.
    many = jax.jit(lambda state: jax.lax.scan(step, state, None, length=part))
    state = (params, zeros, zeros, jnp.float32(0))
    state, loss = one(state)
    float(loss)
    first = time.time()
    state, _ = one(state)
    jax.block_until_ready(many(state))

    def steps(_):
        nonlocal state
        state, losses = many(state)
        return float(losses[-1])

    return first, *median_of_parts(steps)


def main():
    first, us, loss = {"torch": torch_run, "jax": jax_run}[ENGINE]()
    peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
    # The interpreter's own start, before this file, is in no figure of any engine.
    print(json.dumps({"us_per_step": us, "first_step_ms": (first - START) * 1e3, "loss": loss, "peak_rss_bytes": peak << 10}))


main()
