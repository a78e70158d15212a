"""What is released: the packages are whole, made the same from either source, and install over an older version."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import charrnn
from charrnn.training import bundled

ROOT = Path(__file__).parent.parent
OLD = "0.0.1"
pytestmark = pytest.mark.slow


def build(source: Path, out: Path, *arguments: str) -> Path:
    """Build packages with what is installed here; gives the folder."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), *arguments, str(source)]
    made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    return out


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source archive, and the wheel that is built from it."""
    return build(ROOT, tmp_path_factory.mktemp("packages"))


@pytest.fixture(scope="module")
def wheel(packages: Path) -> Path:
    return packages / f"charrnn-{charrnn.__version__}-py3-none-any.whl"


def test_the_wheel_has_the_package_the_corpora_and_the_model_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    files = [path for path in (ROOT / "charrnn").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    expected = {path.relative_to(ROOT).as_posix() for path in files}
    expected |= {f"charrnn/corpora/{path.name}" for path in (ROOT / "corpora").iterdir()}
    for name in bundled.NAMES:
        expected |= {f"charrnn/checkpoints/{name}/{path.name}" for path in (ROOT / "checkpoints" / name).iterdir()}
    about = f"charrnn-{charrnn.__version__}.dist-info"
    expected |= {f"{about}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")}
    assert names == expected
    assert "charrnn/py.typed" in names


def test_the_source_archive_builds_the_wheel_that_the_checkout_builds(wheel: Path, tmp_path: Path) -> None:
    direct = build(ROOT, tmp_path, "--wheel") / wheel.name
    assert direct.read_bytes() == wheel.read_bytes()


def test_the_source_archive_has_tests_and_pages(packages: Path) -> None:
    with tarfile.open(packages / f"charrnn-{charrnn.__version__}.tar.gz") as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in ("README.md", "CHANGELOG.md", "pyproject.toml", "cli.py", "docs/install.md", "tests/test_release.py"):
        assert name in names


class Environment:
    """A fresh environment that sees this one's packages, but not the charrnn of this checkout."""

    def __init__(self, place: Path) -> None:
        venv.create(place / "venv", with_pip=False)
        scripts = place / "venv" / ("Scripts" if os.name == "nt" else "bin")
        self._python, self._place = scripts / "python", place
        # Behind its own, and without the links in them, of which one may lead to the checkout.
        packages = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
        (self._packages() / "others.pth").write_text("\n".join(packages))

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python from a folder that has nothing to do with any of this."""
        (self._place / "elsewhere").mkdir(exist_ok=True)
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        variables["CHARRNN_HOME"] = str(self._place / "home")
        command = [str(self._python), *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=self._place / "elsewhere", env=variables)

    def charrnn(self, *arguments: str) -> dict[str, object]:
        """Run a command of charrnn with --json; gives what it prints."""
        done = self.run("-m", "charrnn", *arguments, "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, object] = json.loads(done.stdout)
        return found

    def install(self, wheel: Path) -> None:
        pip = [sys.executable, "-m", "pip", "--python", str(self._python), "install", "-U", "--no-deps", "--no-index"]
        done = subprocess.run([*pip, str(wheel)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def _packages(self) -> Path:
        code = "import sysconfig; print(sysconfig.get_path('purelib'))"
        command = [str(self._python), "-c", code]
        return Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())


def test_a_new_version_over_an_older_one_completes_anywhere_and_keeps_runs(wheel: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    for name in ("charrnn", "corpora", "checkpoints"):
        shutil.copytree(ROOT / name, old / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, old / name)
    init = old / "charrnn" / "__init__.py"
    text = init.read_text(encoding="utf-8")
    init.write_text(text.replace(f'"{charrnn.__version__}"', f'"{OLD}"'), encoding="utf-8")

    here = Environment(tmp_path)
    here.install(build(old, tmp_path / "dist", "--wheel") / f"charrnn-{OLD}-py3-none-any.whl")
    before = here.charrnn("env")
    assert before["charrnn"] == OLD
    assert Path(str(before["package"])).is_relative_to(tmp_path / "venv")
    here.charrnn("train", "--name", "mine", "--steps", "2", "--hidden", "8", "--batch", "2", "--window", "8")

    here.install(wheel)
    after = here.charrnn("env")
    assert (after["charrnn"], after["package"], after["runs"]) == (charrnn.__version__, before["package"], 1)
    for run in ("mine", "rekurentne"):
        assert here.charrnn("sample", "--run", run, "--prime", "Rek", "--chars", "9")["completions"]
