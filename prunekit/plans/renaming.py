"""Names of modules and tensors before and after entries of containers are gone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prunekit.coupling.groups import Absence
from prunekit.modules.containers import names_left, place
from prunekit.plans.contents import Removal


class Renaming:
    """Both ways between the names that a model had and those that it has without the entries that ``removals`` name.

    Of the modules that ``absences`` name nothing is left.
    """

    def __init__(self, removals: Iterable[Removal], absences: Iterable[Absence] = ()) -> None:
        self._absent = {each.module for each in absences}
        self._now: dict[str, Mapping[str, str]] = {}
        self._was: dict[str, Mapping[str, str]] = {}
        for removal in removals:
            left = [removal.names[at] for at in removal.kept]
            new = names_left(removal.names, removal.kept)
            self._now[removal.container] = dict(zip(left, new, strict=True))
            self._was[removal.container] = dict(zip(new, left, strict=True))

    def was(self, name: str) -> str:
        """The name that a module or tensor had."""
        path = ""
        for part in name.split("."):
            path = place(path, self._was.get(path, {}).get(part, part))
        return path

    def now(self, name: str) -> str | None:
        """The name that a module or tensor has now; None where it is gone."""
        path, found = "", list[str]()
        for part in name.split("."):
            if path in self._absent or (path in self._now and part not in self._now[path]):
                return None
            found.append(self._now.get(path, {}).get(part, part))
            path = place(path, part)
        return ".".join(found)
