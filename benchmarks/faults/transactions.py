"""A fault at lines drawn by a seed in every public function that changes something: old or new, never half."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import prunekit
from benchmarks.faults.counting import Section
from benchmarks.faults.injection import Thrown, lines_of, points, same, stand, thrown


class Net(nn.Module):
    """What a cut touches: convolutions, a norm with statistics, a computed weight, a hook, a cache, an attribute."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.wide = nn.utils.parametrizations.weight_norm(nn.Conv2d(16, 24, 1))
        self.attention = nn.MultiheadAttention(24, 4, batch_first=True)
        self.rnn, self.out = nn.LSTM(24, 16, batch_first=True), nn.Linear(16, 5)
        self.width, self.seen = 24, {}

    def forward(self, x):
        x = self.wide(torch.relu(self.norm(self.conv(x))))
        self.seen["last"] = x.shape
        x = x.flatten(2).transpose(1, 2).reshape(len(x), -1, self.width)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.out(self.rnn(x)[0][:, -1])


def made():
    torch.manual_seed(0)
    net = Net()
    net.wide.train(False)
    net.conv.weight.requires_grad_(False)
    net.out.weight.grad = torch.ones_like(net.out.weight)
    net.out.register_forward_hook(lambda module, given, output: None)
    return net


X = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
ASKED: dict[str, Any] = {"ratio": 0.5, "scorer": "magnitude", "verify": "shapes"}


def transactions(count: int, seed: int, folder: Path) -> Section:
    """``count`` faults, a fifth in each function."""
    section = Section("faults inside a change", seed)
    for each in (_prune, _apply, _undo, _migrate, _save):
        each(section, count // 5, seed, folder)
    return section


def _drawn(call: Callable[[], object], count: int, seed: int) -> list[int]:
    lines_of(call)  # what is imported when it is first asked for does not count
    return points(lines_of(call), count, seed)


def _judge(section: Section, found: Thrown, label: str, *, whole: bool) -> None:
    """Lost where a fault came out and left half, silent where it never came out."""
    if found.swallowed:
        section.count("silent", f"{label}: swallowed at {found.swallowed}")
    else:
        section.count("right" if whole or not found.raised else "lost", label)


def _prune(section: Section, count: int, seed: int, _: Path) -> None:
    for at in _drawn(lambda: prunekit.prune(made(), X, **ASKED), count, seed):
        model = made()
        before, random_state = stand(model), torch.get_rng_state()
        found = thrown(lambda model=model: prunekit.prune(model, X, **ASKED), at)
        whole = same(before, stand(model)) and torch.equal(random_state, torch.get_rng_state())
        _judge(section, found, f"prune, line {at}", whole=whole)


def _apply(section: Section, count: int, seed: int, _: Path) -> None:
    plan = prunekit.plan(made(), X, ratio=0.5, scorer="magnitude")
    for at in _drawn(lambda: prunekit.apply(made(), plan), count, seed):
        model = made()
        before = stand(model)
        found = thrown(lambda model=model: prunekit.apply(model, plan), at)
        _judge(section, found, f"apply, line {at}", whole=same(before, stand(model)))


def _undo(section: Section, count: int, seed: int, _: Path) -> None:
    plan = prunekit.plan(made(), X, ratio=0.5, scorer="magnitude")

    def pruned():
        model = made()
        return model, stand(model), prunekit.apply(model, plan)

    for at in (_drawn(pruned()[2], count, seed) * count)[:count]:
        model, before, undo = pruned()
        after = stand(model)
        found = thrown(undo, at)
        whole = same(before, stand(model)) or same(after, stand(model))
        undo()
        _judge(section, found, f"undo, line {at}", whole=whole and same(before, stand(model)))


def _migrate(section: Section, count: int, seed: int, _: Path) -> None:
    def ready():
        model = made()
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        model(X).sum().backward()
        optimizer.step()
        return optimizer, prunekit.prune(model, X, **ASKED)

    def seen(optimizer):
        groups = [[id(p) for p in group["params"]] for group in optimizer.param_groups]
        return groups, {id(p): {k: id(v) for k, v in s.items()} for p, s in optimizer.state.items()}

    first = ready()
    for at in (_drawn(lambda: prunekit.migrate_optimizer(*first), count, seed) * count)[: count // 4]:
        optimizer, result = ready()
        before = seen(optimizer)
        found = thrown(lambda o=optimizer, r=result: prunekit.migrate_optimizer(o, r), at)
        live = {id(p) for p in result.model.parameters()}
        whole = seen(optimizer) == before or {n for group in seen(optimizer)[0] for n in group} <= live
        _judge(section, found, f"migrate_optimizer, line {at}", whole=whole)


def _save(section: Section, count: int, seed: int, folder: Path) -> None:
    place, results = folder / "slim", [prunekit.prune(made(), X, **ASKED) for _ in range(2)]
    with torch.no_grad():
        results[1].model.out.bias.add_(1)
    wanted = []
    for result in results:
        prunekit.save(result, place)
        wanted.append(_held(place))
    for number, at in enumerate(_drawn(lambda: prunekit.save(results[0], place), count, seed)):
        (place / "mine.txt").write_text("notes")
        fault = thrown(lambda number=number: prunekit.save(results[number % 2], place), at)
        beside = [file for file in folder.rglob("mine.txt") if file.read_text() == "notes"]
        found = {name: content for name, content in _held(place).items() if name != "mine.txt"}
        _judge(section, fault, f"save, line {at}", whole=found in wanted and bool(beside))
        for other in folder.iterdir():
            if other != place:
                shutil.rmtree(other)


def _held(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()} if folder.is_dir() else {}
