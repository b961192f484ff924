"""What a handler's SQL may say: everything but to end the job's transaction."""

import re

from worker.errors import DatasetError

# The parts of SQL in which a semicolon or a word means nothing.
# Source: https://www.postgresql.org/docs/current/sql-syntax-lexical.html
_TOKEN = re.compile(
    r"""
      (?P<space>   \s+ | --[^\n]* )
    | (?P<comment> /\* )
    | (?P<text>    \bE'(?: \\. | '' | [^'\\] )*'        # with escapes
                 | '(?: '' | [^'] )*'
                 | "(?: "" | [^"] )*"
                 | (?P<tag>\$(?:[^\W\d]\w*)?\$) .*? (?P=tag) )
    | (?P<end>     ; )
    | (?P<word>    [^\W\d][\w$]* )
    | (?P<other>   . )
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")

# Almost no query has one of them in it: only the ones that do are read word by word.
_SUSPICIOUS = re.compile(
    r";|\b(?:BEGIN|START|COMMIT|END|ROLLBACK|ABORT|SAVEPOINT|RELEASE|PREPARE|SET)\b", re.IGNORECASE
)
_TEMPORARY = re.compile(r"\bTEMP(?:ORARY)?\b|\bpg_temp\b", re.IGNORECASE)
_TRANSACTION = {
    "BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT", "RELEASE",
}  # fmt: skip
_WRITES = {"INSERT", "UPDATE", "DELETE", "MERGE"}
_CHANGES_TABLES = {"CREATE", "ALTER", "DROP", "DO", "CALL", "IMPORT"}


class Statements:
    """A handler's SQL, read as far as is needed to run it inside a job.

    `text` is the SQL as it is to run, `count` the number of statements in it, `answer` the number
    (from 1) of the one whose result is given: the last one, unless it is said.  Raises DatasetError
    for SQL that would begin or end a transaction.
    """

    def __init__(self, query: str, answer: int | None = None) -> None:
        self.text = query
        self.count = 1
        found = _FIRST_WORD.match(query)
        self._first = {found[1].upper()} if found else set[str]()
        if _SUSPICIOUS.search(query) or not self._first:
            self._read(query)
        self.answer = answer or self.count

    @property
    def pages(self) -> bool:
        """Whether it is one statement of which Postgres can give the first rows only."""
        return (
            self.count == 1
            and self._first <= {"SELECT", "WITH", "VALUES", "TABLE"}
            and not any(word in _WRITES for word in re.findall(r"\w+", self.text.upper()))
        )

    @property
    def changes_tables(self) -> bool:
        """Whether tables may look different after it."""
        return bool(self._first & _CHANGES_TABLES)

    @property
    def makes_temporary(self) -> bool:
        """Whether it may make a temporary table."""
        return _TEMPORARY.search(self.text) is not None

    def _read(self, query: str) -> None:
        done: list[str] = []
        words: list[str] = []  # the first ones of the statement under way
        self._first, self.count = set(), 0
        for kind, token in _tokens(query):
            if kind == "end":
                words = []
            elif kind not in {"space", "comment"}:
                words.append(token.upper())
                if len(words) == 1:
                    self.count += 1
                    self._first.add(words[0])
            said = kind not in {"space", "comment", "end"} and len(words) <= 2  # noqa: PLR2004
            done.append(_inside_job(words, token) if said else token)
        self.text = "".join(done)


_FIRST_WORD = re.compile(r"\s*\(*([a-z]+)\b", re.IGNORECASE)


def _inside_job(words: list[str], token: str) -> str:
    """Refuse what ends a transaction; make SET end with the job: the connection serves others."""
    first, second = words[0], words[1] if len(words) > 1 else ""
    if first in _TRANSACTION or (first, second) == ("PREPARE", "TRANSACTION"):
        raise DatasetError(
            f"{' '.join(words)} is not for handlers: a job is one transaction, which is committed"
            " with its SUCCESS and rolled back where it raises",
            "leave it out; to give up what was written, raise an exception",
        )
    if first == "SET" and second == "SESSION":
        return "LOCAL"
    if first == "SET" and second and second not in {"LOCAL", "TRANSACTION", "CONSTRAINTS"}:
        return f"LOCAL {token}"
    return token


def _tokens(query: str) -> "list[tuple[str, str]]":
    tokens: list[tuple[str, str]] = []
    at = 0
    while at < len(query):
        found = _TOKEN.match(query, at)
        if found is None:  # a quote without its end: Postgres will say so
            tokens.append(("other", query[at:]))
            break
        end = _comment_end(query, at) if found.lastgroup == "comment" else found.end()
        kind = "text" if found["text"] else found.lastgroup or "other"
        tokens.append((kind, query[at:end]))
        at = end
    return tokens


def _comment_end(query: str, start: int) -> int:
    """Where the comment that begins at `start` ends: Postgres' comments nest."""
    depth = 0
    for edge in _COMMENT_EDGE.finditer(query, start):
        depth += 1 if edge[0] == "/*" else -1
        if depth == 0:
            return edge.end()
    return len(query)
