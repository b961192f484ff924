"""A package that pip and uv can build without an index, when the test lets them."""

from pathlib import Path

BACKEND = """
import pathlib, time, zipfile
def build_wheel(folder, *_):
    while not pathlib.Path("go").exists():
        time.sleep(0.05)
    with zipfile.ZipFile(pathlib.Path(folder) / "slow-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("slow.py", "READY = True")
        meta = "Metadata-Version: 2.1\\nName: slow\\nVersion: 1.0\\n"
        wheel.writestr("slow-1.0.dist-info/METADATA", meta)
        wheel.writestr("slow-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any\\n")
        wheel.writestr("slow-1.0.dist-info/RECORD", "")
    return "slow-1.0-py3-none-any.whl"
"""
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "slow"
version = "1.0"
"""


def slow_package(folder: Path) -> str:
    """Write the package into a folder; return what asks for it.

    Its build waits for a file `go` there; then `import slow` has `READY`.
    """
    folder.mkdir(exist_ok=True)
    (folder / "backend.py").write_text(BACKEND)
    (folder / "pyproject.toml").write_text(PROJECT)
    return f"slow @ {folder.as_uri()}"
