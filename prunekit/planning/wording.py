"""What a model's own configuration says about a plan: sizes that it builds otherwise, numbers that it computes anew."""

from __future__ import annotations

from torch import nn

from prunekit.coupling.structure import Structure
from prunekit.modules.walk import named_modules
from prunekit.plans.contents import Edit, Plan
from prunekit.plugins.homes import Place, Words


def sizes_after(structure: Structure, plan: Plan) -> dict[Place, int]:
    """Sizes of all parameters and buffers once ``plan`` is applied."""
    found = {(name, axis): size for name, ref in structure.trace.state.items() for axis, size in enumerate(ref.shape)}
    return found | {(cut.tensor, cut.axis): len(cut.kept) for cut in plan.cuts}


def number_edits(model: nn.Module, structure: Structure, plan: Plan, words: Words) -> tuple[Edit, ...]:
    """Numbers that modules hold and that the class would compute otherwise, such as a scale of 1/sqrt(head_dim).

    None where the configuration cannot say the widths. What the plan edits already stays as it is.
    """
    said = words.say(sizes_after(structure, plan))
    if said.wrong:
        return ()
    known = {(edit.module, edit.attribute) for edit in plan.edits}
    found = []
    for path, module in named_modules(model):
        for name, value in vars(module).items():
            after = said.numbers.get((path, name), value)
            if (
                type(value) in (int, float)
                and type(after) is type(value)
                and after != value
                and (path, name) not in known
            ):
                found.append(Edit(path, name, None, value, after))
    return tuple(found)
