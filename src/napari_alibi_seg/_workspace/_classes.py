"""The classes of a project: ids, names, colours, weights.

`ClassTable` is the one list that the brush, the classifier and the result agree on.
Only this module knows which id and colour a new class gets and what deleting or
merging means for painted pixels; it changes no pixel itself. CSV is left to
`_class_csv`, the pixels to `_painting`.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from psygnal import Signal
from pydantic import BaseModel, ConfigDict, Field, field_validator

from napari_alibi_seg._base import SettingsError, validated
from napari_alibi_seg._segmenter import ClassInfo, class_colour

__all__ = ["MAX_CLASS_ID", "ClassEntry", "ClassTable"]

# Scribbles are stored in 16 bits.
MAX_CLASS_ID = 65535
_MAX_NAME = 200


class ClassEntry(BaseModel):
    """One class.

    Attributes
    ----------
    id : int
        The painted value, 1 to 65535.
    name : str
        Not empty; blanks at the ends are dropped.
    colour : str
        ``#rrggbb``, lower case.
    weight : float
        Of its painted pixels in training, above 0.

    Examples
    --------
    >>> ClassEntry(id=3, name=" pore ", colour="#FF0000")
    ClassEntry(id=3, name='pore', colour='#ff0000', weight=1.0)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: int = Field(ge=1, le=MAX_CLASS_ID)
    name: str
    colour: str = Field(pattern=r"^#[0-9a-fA-F]{6}$")
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)

    @field_validator("name")
    @classmethod
    def _one_line(cls, value: str) -> str:
        value = value.strip()
        if not value or len(value) > _MAX_NAME or not value.isprintable():
            raise ValueError(f"must be one line of 1 to {_MAX_NAME} characters")
        return value

    @field_validator("colour")
    @classmethod
    def _lower(cls, value: str) -> str:
        return value.lower()


class ClassTable:
    """An ordered list of classes with distinct ids and names.

    Parameters
    ----------
    entries : iterable of ClassEntry
        Classes to begin with, in order.

    Attributes
    ----------
    changed : psygnal.Signal
        Emitted once after each operation that changed something, on the thread that
        called it.

    Raises
    ------
    SettingsError
        If an id or a name occurs twice.

    Examples
    --------
    >>> table = ClassTable()
    >>> table.add("pore").id, table.add("grain", class_id=7).id, table.add().id
    (1, 7, 2)
    >>> table.merge(2, 7)
    {2: 7}
    >>> table.delete(1)
    {1: 0}
    >>> [entry.name for entry in table]
    ['grain']
    """

    changed = Signal()

    def __init__(self, entries: Iterable[ClassEntry] = ()) -> None:
        self._entries: dict[int, ClassEntry] = _by_id(entries)

    def __iter__(self) -> Iterator[ClassEntry]:
        return iter(tuple(self._entries.values()))

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, class_id: object) -> bool:
        return class_id in self._entries

    def __getitem__(self, class_id: int) -> ClassEntry:
        """Return a class.

        Raises
        ------
        SettingsError
            If there is no class of that id.
        """
        if class_id not in self._entries:
            raise SettingsError(
                f"Expected the id of a class, one of {list(self.ids)}, got "
                f"{class_id!r}. Add the class first."
            )
        return self._entries[class_id]

    @property
    def entries(self) -> tuple[ClassEntry, ...]:
        """The classes in order."""
        return tuple(self._entries.values())

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids in the order of the table."""
        return tuple(self._entries)

    @property
    def names(self) -> dict[int, str]:
        """Name by id."""
        return {e.id: e.name for e in self}

    @property
    def weights(self) -> dict[int, float]:
        """Weight by id."""
        return {e.id: e.weight for e in self}

    def to_infos(self) -> dict[int, ClassInfo]:
        """Return names and colours as a segmenter keeps them."""
        return {e.id: ClassInfo(e.name, e.colour) for e in self}

    def add(
        self,
        name: str | None = None,
        *,
        class_id: int | None = None,
        colour: str | None = None,
        weight: float = 1.0,
    ) -> ClassEntry:
        """Append a class.

        Parameters
        ----------
        name : str, optional
            By default "class N", N the id.
        class_id : int, optional
            By default the smallest free one from 1 up.
        colour : str, optional
            By default that of the id, or the next that no class has.
        weight : float
            Above 0.

        Returns
        -------
        ClassEntry

        Raises
        ------
        SettingsError
            If the id or the name is taken, or a value is out of range.
        """
        if class_id is None:
            class_id = next(i for i in range(1, MAX_CLASS_ID + 2) if i not in self)
        elif class_id in self:
            raise SettingsError(
                f"Expected a free class id, got {class_id}, which is "
                f"{self[class_id].name!r}. Choose another id."
            )
        if name is None:
            name = self._free_name(f"class {class_id}")
        entry = self._append(name, class_id, colour=colour, weight=weight)
        self.changed.emit()
        return entry

    def rename(self, class_id: int, name: str) -> None:
        """Give a class another name.

        Raises
        ------
        SettingsError
            If the name is empty or another class has it.
        """
        self._change(class_id, name=name)

    def recolour(self, class_id: int, colour: str) -> None:
        """Give a class another colour, ``#rrggbb``.

        Raises
        ------
        SettingsError
            If it is not such a colour.
        """
        self._change(class_id, colour=colour)

    def set_weight(self, class_id: int, weight: float) -> None:
        """Set the weight of a class in training.

        Raises
        ------
        SettingsError
            If it is not a finite number above 0.
        """
        self._change(class_id, weight=weight)

    def delete(self, class_id: int) -> dict[int, int]:
        """Remove a class.

        Returns
        -------
        dict of int to int
            What painted pixels become: the id becomes 0. See `remap_ids`.

        Raises
        ------
        SettingsError
            If there is no such class.
        """
        del self._entries[self[class_id].id]
        self.changed.emit()
        return {class_id: 0}

    def merge(self, source: int, target: int) -> dict[int, int]:
        """Make one class of two; name, colour and weight are those of `target`.

        Returns
        -------
        dict of int to int
            What painted pixels become: `source` becomes `target`. See `remap_ids`.

        Raises
        ------
        SettingsError
            If one is no class, or both are the same.
        """
        if self[source].id == self[target].id:
            raise SettingsError(
                f"Expected two classes to merge, got {source} twice. Choose another."
            )
        del self._entries[source]
        self.changed.emit()
        return {source: target}

    def ensure(self, class_ids: Iterable[Any]) -> tuple[int, ...]:
        """Add a class for every painted id that has none; 0 is left out.

        Parameters
        ----------
        class_ids : iterable of int
            Ids found in a Labels layer or a mask.

        Returns
        -------
        tuple of int
            The ids that were new, ascending.

        Raises
        ------
        SettingsError
            If an id is negative or above 65535; nothing is added then.
        """
        wanted = sorted({operator.index(i) for i in class_ids} - {0} - set(self.ids))
        if wanted and not 1 <= wanted[0] <= wanted[-1] <= MAX_CLASS_ID:
            raise SettingsError(
                f"Expected class ids from 1 to {MAX_CLASS_ID}, got {wanted}. Give "
                "every class a small positive id."
            )
        for i in wanted:
            self._append(self._free_name(f"class {i}"), i)
        if wanted:
            self.changed.emit()
        return tuple(wanted)

    def adopt(
        self, infos: Mapping[int, ClassInfo], weights: Mapping[int, float] | None = None
    ) -> None:
        """Take over the classes of a loaded classifier.

        Classes that the classifier does not know stay; where one of these has a name
        of the classifier's, it gets a number behind it.

        Parameters
        ----------
        infos : mapping of int to ClassInfo
            ``Segmenter.classes``.
        weights : mapping of int to float, optional
            Those it was trained with, 1 where they say nothing. None leaves the
            weights as they are.

        Raises
        ------
        SettingsError
            If an id or a weight is out of range; nothing is changed then.
        """
        known = self.weights if weights is None else weights
        others = [e for e in self if e.id not in infos]
        fresh = ClassTable()
        for i, info in infos.items():
            name = fresh._free_name(info.name.strip() or f"class {i}")
            weight = known.get(i, 1.0)
            fresh._append(name, i, colour=info.colour, weight=weight)
        for e in others:
            fresh._put(e.model_copy(update={"name": fresh._free_name(e.name)}))
        # in the order they had, new ones behind
        order = [*self.ids, *(i for i in infos if i not in self)]
        self.replace(fresh[i] for i in order)

    def replace(self, entries: Iterable[ClassEntry]) -> None:
        """Replace the whole table.

        Raises
        ------
        SettingsError
            If an id or a name occurs twice; the table is then unchanged.
        """
        fresh = _by_id(entries)
        if list(fresh.values()) != list(self._entries.values()):
            self._entries = fresh
            self.changed.emit()

    def _append(
        self, name: str, class_id: int, *, colour: str | None = None, weight: float = 1
    ) -> ClassEntry:
        colour = colour or self._free_colour(class_id)
        entry = _entry(id=class_id, name=name, colour=colour, weight=weight)
        self._put(entry)
        return entry

    def _change(self, class_id: int, **values: Any) -> None:
        before = self[class_id]
        after = _entry(**{**before.model_dump(), **values})
        if after != before:
            self._put(after)
            self.changed.emit()

    def _put(self, entry: ClassEntry) -> None:
        same = [e.id for e in self if e.name == entry.name and e.id != entry.id]
        if same:
            raise SettingsError(
                f"Expected a name that no class has, got {entry.name!r}, which is "
                f"class {same[0]}. Choose another name, or merge the two."
            )
        self._entries[entry.id] = entry

    def _free_name(self, wanted: str) -> str:
        taken, name, n = set(self.names.values()), wanted, 1
        while name in taken:
            n += 1
            name = f"{wanted} ({n})"
        return name

    def _free_colour(self, class_id: int) -> str:
        taken = {e.colour for e in self}
        candidates = [max(1, class_id), *range(1, len(self) + 2)]
        free = (c for c in map(class_colour, candidates) if c not in taken)
        return next(free, class_colour(1))


def _entry(**values: Any) -> ClassEntry:
    return validated(ClassEntry, values)


def _by_id(entries: Iterable[ClassEntry]) -> dict[int, ClassEntry]:
    out: dict[int, ClassEntry] = {}
    names: dict[str, int] = {}
    for e in entries:
        if e.id in out:
            raise SettingsError(
                f"Expected each class id once, got {e.id} for {out[e.id].name!r} and "
                f"{e.name!r}. Give one of them another id."
            )
        if e.name in names:
            raise SettingsError(
                f"Expected each class name once, got {e.name!r} for {names[e.name]} "
                f"and {e.id}. Rename one of them."
            )
        out[e.id] = e
        names[e.name] = e.id
    return out
