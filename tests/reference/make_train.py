"""Training runs by PyTorch: losses of every step and the parameters at the end.

Usage: python make_train.py

Writes train/cases.json and train/cases.safetensors. A case is a network (a list of layers), a loss, an optimizer and
a schedule, run for some steps on four batches in turn. A single step of plain SGD with a learning rate of 1 makes the
end differ from the beginning by just the gradient: that is how each op is checked by itself.
"""

import json
import math
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

HERE = Path(__file__).parent / "train"
ROWS, INPUTS, CLASSES, BATCHES, ENTRIES = 7, 5, 3, 4, 6


class Net(nn.Module):
    """Layers by name, one after the other; `add:N` adds what stood after layer N."""

    def __init__(self, layers):
        super().__init__()
        self.layers, width = layers, INPUTS
        for i, layer in enumerate(layers):
            kind, _, argument = layer.partition(":")
            module = None
            if kind == "linear":
                module, width = nn.Linear(width, int(argument)), int(argument)
            elif kind == "linear_without_bias":
                module, width = nn.Linear(width, int(argument), bias=False), int(argument)
            elif kind == "layer_norm":
                module = nn.LayerNorm(width)
            elif kind == "batch_norm":
                module = nn.BatchNorm1d(width)
            elif kind == "embedding":
                module, width = nn.Embedding(ENTRIES, int(argument)), int(argument)
            if module is not None:
                self.add_module(f"l{i}", module)
            if kind.endswith("norm"):
                nn.init.normal_(module.weight, 1.0, 0.3)
                nn.init.normal_(module.bias, 0.0, 0.3)

    def forward(self, x, ids):
        kept = []
        for i, layer in enumerate(self.layers):
            kind, _, argument = layer.partition(":")
            module = getattr(self, f"l{i}", None)
            if kind == "embedding":
                x = module(ids)
            elif module is not None:
                x = module(x)
            elif kind == "add":
                x = x + kept[int(argument)]
            elif kind == "softmax":
                x = x.softmax(-1)
            else:
                x = getattr(torch if kind in ("tanh", "sigmoid") else nn.functional, kind)(x)
            kept.append(x)
        return x


MLP = ["linear:8", "relu", "linear:6", "tanh", "linear:3"]
SGD1 = {"name": "sgd", "lr": 1.0}


def case(name, net=MLP, loss="cross_entropy", optimizer=SGD1, steps=1, **more):
    return {"name": name, "net": net, "loss": loss, "optimizer": optimizer, "steps": steps, **more}


def optimizers():
    yield "sgd", {"name": "sgd", "lr": 0.1}
    yield "momentum", {"name": "sgd", "lr": 0.05, "momentum": 0.9}
    yield "nesterov", {"name": "sgd", "lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.01}
    yield "dampening", {"name": "sgd", "lr": 0.05, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.02}
    yield "adam", {"name": "adam", "lr": 0.01}
    yield "adam_decay", {"name": "adam", "lr": 0.01, "betas": [0.8, 0.99], "eps": 1e-6, "weight_decay": 0.05}
    yield "adamw", {"name": "adamw", "lr": 0.01, "weight_decay": 0.1}
    yield "rmsprop", {"name": "rmsprop", "lr": 0.005}
    yield "rmsprop_momentum", {"name": "rmsprop", "lr": 0.002, "alpha": 0.9, "momentum": 0.5, "weight_decay": 0.01}


def cases():
    for act in ["relu", "gelu", "silu", "tanh", "sigmoid"]:
        yield case(f"gradient_{act}", ["linear:8", act, "linear:3"])
        yield case(f"gradient_{act}_last", ["linear:8", "linear:3", act])
    yield case("gradient_wide", ["linear:40", "relu", "linear:70", "gelu", "linear:3"])
    yield case("gradient_without_bias", ["linear_without_bias:8", "relu", "linear:3"])
    yield case("gradient_layer_norm", ["linear:8", "layer_norm", "relu", "linear:3"])
    yield case("gradient_batch_norm", ["linear:8", "batch_norm", "silu", "linear:3"])
    yield case("gradient_embedding", ["embedding:8", "tanh", "linear:3"])
    yield case("gradient_add", ["linear:8", "relu", "linear:8", "add:1", "linear:8", "gelu", "add:3", "linear:3"])
    yield case("gradient_softmax", ["linear:8", "tanh", "linear:3", "softmax"], loss="mse")
    for loss in ["mse", "mae", "huber", "bce_with_logits"]:
        yield case(f"gradient_{loss}", loss=loss)
    yield case("gradient_smoothing", label_smoothing=0.1)
    yield case("gradient_class_weights", class_weights=[0.5, 1.0, 3.0])
    yield case("gradient_both", label_smoothing=0.2, class_weights=[0.5, 1.0, 3.0])
    yield case("gradient_many_classes", ["linear:8", "tanh", "linear:45"], label_smoothing=0.1)
    for name, optimizer in optimizers():
        yield case(f"run_{name}", optimizer=optimizer, steps=100)
    adamw = {"name": "adamw", "lr": 0.01}
    # A bias before a batch norm would get nothing but the noise of rounding.
    norms = ["embedding:8", "layer_norm", "tanh", "linear_without_bias:8", "batch_norm", "gelu", "linear:3"]
    yield case("run_norms", norms, optimizer=adamw, steps=100)
    yield case("run_clip", optimizer={"name": "sgd", "lr": 0.1, "momentum": 0.9}, steps=100, clip_norm=0.2)
    yield case("run_accumulate", optimizer={"name": "adam", "lr": 0.01}, steps=100, accumulate=4)
    yield case("run_groups", optimizer={"name": "adamw", "lr": 0.01, "weight_decay": 0.2}, steps=100, no_decay="bias")
    for schedule in [
        {"name": "step", "every": 10, "gamma": 0.5},
        {"name": "cosine", "steps": 100, "floor": 0.1},
        {"name": "warm_up", "steps": 20, "then_cosine": 80},
        {"name": "plateau", "factor": 0.5, "patience": 3, "threshold": 0.01},
    ]:
        optimizer = {"name": "sgd", "lr": 0.2, "momentum": 0.9}
        yield case(f"run_{schedule['name']}", optimizer=optimizer, steps=100, schedule=schedule)


def make_optimizer(spec, net, no_decay):
    options = {k: v for k, v in spec.items() if k != "name"}
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "rmsprop": torch.optim.RMSprop}
    named = list(net.named_parameters())
    plain = [p for n, p in named if no_decay and n.endswith(no_decay)]
    rest = [p for n, p in named if not (no_decay and n.endswith(no_decay))]
    groups = [{"params": rest}] + ([{"params": plain, "weight_decay": 0.0}] if plain else [])
    return kind[spec["name"]](groups, **options)


def make_schedule(spec, optimizer):
    if spec is None:
        return None
    lambdas = torch.optim.lr_scheduler.LambdaLR
    if spec["name"] == "step":
        return torch.optim.lr_scheduler.StepLR(optimizer, spec["every"], spec["gamma"])
    if spec["name"] == "cosine":
        lr = optimizer.param_groups[0]["lr"]
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, spec["steps"], lr * spec["floor"])
    if spec["name"] == "warm_up":
        n, m = spec["steps"], spec["then_cosine"]
        return lambdas(optimizer, lambda t: (t + 1) / n if t < n else 0.5 * (1 + math.cos(math.pi * (t - n) / m)))
    return torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=spec["factor"], patience=spec["patience"], threshold=spec["threshold"]
    )


def loss_of(case, y, labels, targets):
    kind = case["loss"]
    if kind == "cross_entropy":
        weights = case.get("class_weights")
        weights = torch.tensor(weights) if weights else None
        return nn.functional.cross_entropy(y, labels, weights, label_smoothing=case.get("label_smoothing", 0.0))
    if kind == "bce_with_logits":
        return nn.functional.binary_cross_entropy_with_logits(y, targets.sigmoid())
    if kind == "huber":
        return nn.functional.huber_loss(y, targets, delta=0.7)
    return {"mse": nn.functional.mse_loss, "mae": nn.functional.l1_loss}[kind](y, targets)


def run(case, data, out):
    net = Net(case["net"])
    name = case["name"]
    for key, value in net.state_dict().items():
        if value.dtype == torch.float32:
            out[f"{name}/begin/{key}"] = value.clone()
    optimizer = make_optimizer(case["optimizer"], net, case.get("no_decay"))
    schedule = make_schedule(case.get("schedule"), optimizer)
    accumulate, losses = case.get("accumulate", 1), []
    for step in range(case["steps"]):
        batch = step % BATCHES
        y = net(data["x"][batch], data["ids"][batch].long())
        loss = loss_of(case, y, data["labels"][batch].long(), data["targets"][batch])
        losses.append(loss.item())
        (loss / accumulate).backward()
        if (step + 1) % accumulate:
            continue
        if "clip_norm" in case:
            nn.utils.clip_grad_norm_(net.parameters(), case["clip_norm"])
        optimizer.step()
        optimizer.zero_grad()
        if isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
            schedule.step(losses[-1])
        elif schedule:
            schedule.step()
    out[f"{name}/losses"] = torch.tensor(losses)
    for key, value in net.state_dict().items():
        if value.dtype == torch.float32:
            out[f"{name}/end/{key}"] = value.clone()


def main():
    torch.manual_seed(20)
    torch.set_num_threads(1)
    HERE.mkdir(exist_ok=True)
    data = {
        "x": torch.randn(BATCHES, ROWS, INPUTS),
        "targets": torch.randn(BATCHES, ROWS, CLASSES),
        "labels": torch.randint(0, CLASSES, (BATCHES, ROWS), dtype=torch.uint8),
        "ids": torch.randint(0, ENTRIES, (BATCHES, ROWS), dtype=torch.uint8),
    }
    out, every = dict(data), list(cases())
    for one in every:
        run(one, data, out)
    save_file(out, HERE / "cases.safetensors")
    (HERE / "cases.json").write_text(json.dumps(every, indent=1) + "\n")


if __name__ == "__main__":
    main()
