"""A question above the panels that waits without stopping anything.

Only this module knows what it looks like; who asks says what is done with the answer.
"""

from __future__ import annotations

from typing import Any

from qtpy.QtWidgets import QFrame, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_alibi_seg._widgets._parts import Hint

__all__ = ["Offer"]


class Offer(QFrame):
    """A question with two answers that waits without stopping anything."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.text = Hint()
        self.yes, self.no = QPushButton(), QPushButton()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 4, 6, 4)
        layout.addWidget(self.text)
        answers = QHBoxLayout()
        answers.addWidget(self.yes)
        answers.addWidget(self.no)
        layout.addLayout(answers)
        self._chosen: Any = None
        self.yes.clicked.connect(lambda: self.answer(True))
        self.no.clicked.connect(lambda: self.answer(False))
        self.hide()

    @property
    def is_open(self) -> bool:
        """Whether an answer is awaited."""
        return self._chosen is not None

    def ask(self, text: str, yes: str, no: str, chosen: Any) -> None:
        """Ask; `chosen` is called with True or False."""
        self.text.say(text)
        self.yes.setText(yes)
        self.no.setText(no)
        self._chosen = chosen
        self.show()

    def answer(self, is_yes: bool) -> None:
        """Take an answer, from a button or because the user just went on."""
        chosen, self._chosen = self._chosen, None
        self.hide()
        if chosen is not None:
            chosen(is_yes)

    def withdraw(self) -> None:
        """Ask no more."""
        self._chosen = None
        self.hide()
