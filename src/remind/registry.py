"""Names to classes, imported when first asked for; the constructor's signature is the schema of its settings."""

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from remind.errors import RemindError, explain, unknown

# The ranges of hyperparameters, for annotations; `check` holds users to them.
Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Registry:
    """A table ``name -> "module:attribute"``. Listing it imports nothing; a new component is one more line."""

    def __init__(self, kind: str, entries: Mapping[str, str]) -> None:
        self.kind = kind
        self._entries = dict(entries)

    def names(self) -> tuple[str, ...]:
        """Every known name, in the order of the table."""
        return tuple(self._entries)

    def get(self, name: str) -> Any:
        """The class or function behind a name.

        Raises:
            RemindError: if the table has no such name.
        """
        if name not in self._entries:
            raise RemindError(unknown(self.kind, name, self._entries))
        module, attribute = self._entries[name].split(":")
        return getattr(import_module(module), attribute)

    def settings(self, name: str) -> dict[str, inspect.Parameter]:
        """The keyword-only parameters of a component: its hyperparameters, with types and defaults."""
        parameters = inspect.signature(self.get(name)).parameters
        return {key: p for key, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}

    def check(self, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """The given settings, converted to the types in the component's signature.

        Raises:
            RemindError: if the component has no such setting, or the value does not fit; names both.
        """
        known = self.settings(name)
        checked = {}
        for key, value in given.items():
            if key not in known:
                raise RemindError(unknown(f"setting of {self.kind} {name!r}", key, known))
            try:
                checked[key] = TypeAdapter(known[key].annotation).validate_python(value)
            except ValidationError as error:
                raise explain(f"setting {key!r} of {self.kind} {name!r}", error) from None
        return checked

    def build(self, name: str, *facts: Any, **settings: Any) -> Any:
        """Construct a component from facts (positional) and settings (checked against its signature).

        Raises:
            RemindError: if a setting does not fit, or the component refuses the combination of them.
        """
        checked = self.check(name, settings)
        try:
            return self.get(name)(*facts, **checked)
        except ValueError as error:
            raise RemindError(f"{self.kind} {name!r}: {error}.") from None
