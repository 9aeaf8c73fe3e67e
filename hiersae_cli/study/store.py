"""The database of answers: SQLite in the study's folder, or any database by its URL.

An answer is on the disk before it is acknowledged, and each rater has one answer to each item.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    create_engine,
    delete,
    event,
    insert,
    select,
)
from sqlalchemy.engine import Connection
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, SQLAlchemyError

from hiersae_cli.errors import FileError, HierSAEError, UsageError
from hiersae_cli.formats.fields import COUNT, require_fields

HUMAN, MODEL, SIMULATED = "human", "model", "simulated"
CONSENT, PRACTICE = "consent", "practice"
JOINED = "joined"  # a rater's link was given to somebody who came by the common link

_tables = MetaData()
_answers = Table(
    "hiersae_answers",
    _tables,
    Column("id", Integer, primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("rater", Integer, nullable=False),
    Column("name", String(200), nullable=False),
    Column("item", String(32), nullable=False),
    Column("value", String(200), nullable=False),
    Column("ms", Integer, nullable=False),
    Column("time", String(32), nullable=False),
    Column("label_of", Integer),
    UniqueConstraint("kind", "rater", "name", "item", name="hiersae_one_answer"),
)
_steps = Table(
    "hiersae_steps",
    _tables,
    Column("rater", Integer, primary_key=True, autoincrement=False),
    Column("step", String(16), primary_key=True),
    Column("time", String(32), nullable=False),
)
_state = Table(
    "hiersae_state", _tables, Column("name", String(32), primary_key=True), Column("value", String(200), nullable=False)
)
_FIELDS: dict[str, Any] = {
    **dict.fromkeys(("kind", "name", "item", "value", "time"), str),
    **dict.fromkeys(("rater", "ms"), COUNT),
    "label_of": (COUNT, None),
}


@dataclass(frozen=True)
class Answer:
    """An answer to an item.

    Attributes:
        kind: ``human``, ``model`` or ``simulated``.
        rater: number, counted from 0 within the kind.
        name: of a model; else "".
        item: id.
        value: number of the option, ``yes``, ``no``, ``unsure``, or words.
        ms: milliseconds since the item was shown.
        time: UTC, ISO 8601.
        label_of: if a label was matched, the number of the rater who wrote it.
    """

    kind: str
    rater: int
    name: str
    item: str
    value: str
    ms: int
    time: str = ""
    label_of: int | None = None


class Store:
    """The answers of one study.

    Args:
        url: of the database, in SQLAlchemy's form.
        study: fingerprint of the items: a database of another study is refused.

    Raises:
        UsageError: the URL is invalid, or its driver is not installed.
        FileError: the database cannot be reached, or belongs to another study.
    """

    def __init__(self, url: str, study: str):
        try:
            self._engine = create_engine(url, pool_pre_ping=True, pool_size=16, max_overflow=48)
        except (ArgumentError, NoSuchModuleError, ImportError, TypeError) as error:
            raise UsageError(
                f"--database: not a database that can be used ({error})",
                "Such as postgresql+psycopg://USER@HOST/NAME, with the driver installed.",
            ) from None
        self.place = self._engine.url.render_as_string(hide_password=True)
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine, "connect", _durable)
        with self._connected() as connection:
            _tables.create_all(connection)
        self._bind(study)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def add(self, *answers: Answer) -> bool:
        """Keep answers, all or none; when this returns they are on the disk. False if one of them exists already."""
        now = _now()
        rows = [{**vars(answer), "time": answer.time or now} for answer in answers]
        try:
            with self._connected() as connection:
                connection.execute(insert(_answers), rows)
        except IntegrityError:
            return False
        return True

    def answers(self, **where: Any) -> list[Answer]:
        """All answers, or those whose columns have these values, in the order of their arrival.

        Raises ``FileError`` for an answer that this program cannot have written: SQLite takes any value for any type.
        """
        query = select(*(column for column in _answers.c if column.name != "id")).order_by(_answers.c.id)
        for name, value in where.items():
            query = query.where(_answers.c[name] == value)
        with self._connected() as connection:
            answers = [Answer(**row._mapping) for row in connection.execute(query)]
        for answer in answers:
            require_fields(self.place, vars(answer), _FIELDS, "Restore it from a copy.")
        return answers

    def take_step(self, rater: int, step: str) -> bool:
        """Note that a rater has joined, consented, practised or had a break; False if that is noted already."""
        try:
            with self._connected() as connection:
                connection.execute(insert(_steps).values(rater=rater, step=step, time=_now()))
        except IntegrityError:
            return False
        return True

    def begun(self) -> set[int]:
        """The raters who have taken any step."""
        with self._connected() as connection:
            return set(connection.scalars(select(_steps.c.rater).distinct()))

    def steps(self, rater: int) -> set[str]:
        """What a rater has done besides answering: ``JOINED``, ``CONSENT``, the practice and its parts, and breaks."""
        with self._connected() as connection:
            return set(connection.scalars(select(_steps.c.step).where(_steps.c.rater == rater)))

    def stop(self, stopped: bool) -> None:
        """Close the study for answers, or open it again."""
        self._note("stopped", stopped)

    def stopped(self) -> str:
        """When the study was closed; "" if it is open."""
        return self._noted("stopped")

    def begin_second_half(self) -> None:
        """Let the raters begin who match labels, even if some labels are missing."""
        self._note("second_half", True)

    def second_half(self) -> str:
        """When they were let in; "" if they were not."""
        return self._noted("second_half")

    def _note(self, name: str, on: bool) -> None:
        with self._connected() as connection:
            connection.execute(delete(_state).where(_state.c.name == name))
            if on:
                connection.execute(insert(_state).values(name=name, value=_now()))

    def _noted(self, name: str) -> str:
        with self._connected() as connection:
            return connection.scalar(select(_state.c.value).where(_state.c.name == name)) or ""

    def _bind(self, study: str) -> None:
        """Note whose answers the database holds, or refuse those of another study."""
        query = select(_state.c.value).where(_state.c.name == "study")
        with self._connected() as connection:
            bound_to = connection.scalar(query)
        if bound_to is None:
            try:
                with self._connected() as connection:
                    connection.execute(insert(_state).values(name="study", value=study))
            except IntegrityError:  # another program was faster
                pass
            with self._connected() as connection:
                bound_to = connection.scalar(query)
        if bound_to != study:
            raise FileError(f"{self.place}: holds the answers of another study", "Name another with --database.")

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        """A transaction, committed at the end of the block."""
        try:
            with self._engine.begin() as connection:
                yield connection
        except IntegrityError:
            raise
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or error).splitlines()[0]
            raise HierSAEError(f"{self.place}: {reason}", "Check the database, and that it can be written.") from None


def _durable(connection: Any, record: Any) -> None:
    """Readers do not wait for writers, and a commit returns when it is on the disk."""
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=60000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
