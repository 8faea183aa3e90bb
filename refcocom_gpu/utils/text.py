"""Text for people: what a file or a message can hold, and one line of an error."""

from __future__ import annotations

from pathlib import PureWindowsPath


def as_text(value: str) -> str:
    r"""Return text that can be written as UTF-8: bytes of a file name that are not UTF-8 are escaped.

    >>> as_text("a\udcffé")
    'a\\udcffé'
    """
    return value.encode("utf-8", "backslashreplace").decode("utf-8")


def first_line(error: BaseException) -> str:
    r"""Return the first line of an error's message, or the name of its type where the message is empty.

    >>> first_line(ValueError("no such column\nat line 3")), first_line(KeyboardInterrupt())
    ('no such column', 'KeyboardInterrupt')
    """
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def base_name(file_name: str) -> str:
    r"""Return the name of a file without its folders, whichever slash separates them.

    >>> base_name("train2014/1.jpg"), base_name(r"train2014\1.jpg")
    ('1.jpg', '1.jpg')
    """
    return PureWindowsPath(file_name).name
