"""How long work tells that it goes on. Library code reports steps; the command line shows them."""

from typing import Protocol


class Progress(Protocol):
    """Steps may overlap; each is known by its name. Methods are called from several threads."""

    def started(self, step: str) -> None: ...

    def advanced(self, step: str, note: str) -> None: ...

    def waited(self, step: str, note: str) -> None:
        """As advanced, for what others are waited for: on a terminal it is shown even to those who want no progress."""
        ...

    def finished(self, step: str, note: str = "") -> None: ...

    def failed(self, step: str) -> None: ...

    def warned(self, text: str) -> None: ...


class Silent:
    """Shows nothing."""

    def started(self, step: str) -> None:
        pass

    def advanced(self, step: str, note: str) -> None:
        pass

    def waited(self, step: str, note: str) -> None:
        pass

    def finished(self, step: str, note: str = "") -> None:
        pass

    def failed(self, step: str) -> None:
        pass

    def warned(self, text: str) -> None:
        pass
