"""The load: wrk (https://github.com/wg/wrk), many connections that each send one call at a time."""

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass

ROWS = (
    b'[{"order_id": 1, "customer": "Rebecca", "remark": "imperdiet ornare"},'
    b' {"order_id": 2, "customer": "Veronica", "remark": "nullam ut nisi"},'
    b' {"order_id": 3, "customer": "Aurelia", "remark": "amet"},'
    b' {"order_id": 4, "customer": "Yardley", "remark": "placerat, orci lacus vestibulum"},'
    b' {"order_id": 5, "customer": "Dakota", "remark": null}]'
)
THREADS = 2
UNITS_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


@dataclass(frozen=True)
class Answered:
    """What wrk saw."""

    per_s: float
    count: int
    p99_ms: float


def check() -> None:
    """Leave with a hint where wrk is missing."""
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is needed to make the load: apt-get install wrk, or brew install wrk")


def send(url: str, headers: dict[str, str], connections: int, count: int) -> None:
    """Exactly so many starts; returns when the last is answered, with none under way.

    Rows differ in their `order_id`, so that one that came twice can be found.  Raises RuntimeError
    where an answer is not 2xx.
    """
    script = f"""
        {_settings("POST", headers, None)}
        local sent, answered, row = 0, 0, 0
        function delay() if sent >= {count} then return 600000 end; sent = sent + 1; return 0 end
        local body = [==[{ROWS.decode()}]==]
        function request()
          return wrk.format(nil, nil, nil, (body:gsub('"order_id": %d+', function()
            row = row + 1; return '"order_id": ' .. row end)))
        end
        function response(status)
          answered = answered + 1
          if status >= 300 then os.exit(3) end
          if answered >= {count} then os.exit(0) end
        end
        """
    # wrk itself would sleep to the end of its time.
    done = _wrk(["-t1", f"-c{connections}", "-d300s"], script, url)
    if done.returncode:
        raise RuntimeError(f"{url} did not take {count} starts: {done.stdout[-300:]}")


def load(
    method: str,
    url: str,
    headers: dict[str, str],
    connections: int,
    seconds: float,
    body: bytes | None = None,
) -> Answered:
    """Call for so many seconds; raises RuntimeError where an answer is not 2xx."""
    words = [f"-t{THREADS}", f"-c{connections}", f"-d{seconds:g}s", "--latency"]
    return _answered(words, _settings(method, headers, body), url)


def steadily(url: str, headers: dict[str, str], per_s: float, seconds: float) -> float:
    """Start at this rate for so many seconds; the starts a second that were answered.

    As many connections as it takes to keep the rate where each answer takes a while.  wrk knows no
    time of its own, so its Lua asks the system (gettimeofday(2)).  Raises as `load`.
    """
    script = f"""
        {_settings("POST", headers, ROWS)}
        local ffi = require("ffi")
        ffi.cdef("typedef struct {{ long s; int us; int rest; }} timeval;" ..
                 "int gettimeofday(timeval *now, void *zone);")
        local now, due_ms = ffi.new("timeval"), nil
        function delay()
          ffi.C.gettimeofday(now, nil)
          local now_ms = tonumber(now.s) * 1000 + now.us / 1000
          due_ms = (due_ms or now_ms) + {1000 / per_s}
          return math.max(0, math.floor(due_ms - now_ms))
        end
        """
    return _answered(["-t1", "-c24", f"-d{seconds:g}s", "--latency"], script, url).per_s


def _answered(words: list[str], script: str, url: str) -> Answered:
    said = _wrk(words, script, url).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    total = re.search(r"(\d+) requests in", said)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s|m)", said)
    if not (rate and total and p99) or "Non-2xx" in said or "Socket errors" in said:
        raise RuntimeError(f"{url}: wrk said: {said}")
    return Answered(float(rate[1]), int(total[1]), float(p99[1]) * UNITS_MS[p99[2]])


def _settings(method: str, headers: dict[str, str], body: bytes | None) -> str:
    lines = [f'wrk.method = "{method}"']
    lines += [f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items()]
    if body is not None:
        lines.append(f"wrk.body = [==[{body.decode()}]==]")
    return "\n".join(lines)


def _wrk(words: list[str], script: str, url: str) -> subprocess.CompletedProcess[str]:
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        return subprocess.run(
            ["wrk", *words, "-s", file.name, url], capture_output=True, text=True, check=False
        )
