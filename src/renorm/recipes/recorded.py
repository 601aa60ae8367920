"""What a run folder has recorded about the weights behind its figures."""

import json
from pathlib import Path

from renorm.errors import DataError
from renorm.measure.features import extractor
from renorm.recipes.spec import MeasureSpec

__all__ = ["check_recorded"]


def check_recorded(folder: Path, measure: MeasureSpec) -> None:
    """Refuse to measure a run by an extractor of the same name, but of other weights, than the last time.

    Raises:
        DataError: If ``measures.json`` has a figure of this extractor's name and another SHA-256.
    """
    path = folder / "measures.json"
    if measure.extractor is None or not path.is_file():
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        figures, recorded = before["figures"], before["notes"].get("extractor_sha256")
    except (ValueError, KeyError, TypeError, AttributeError):
        return  # nothing was recorded; the new measures replace the file
    known = extractor(measure.extractor)
    if recorded and recorded != known.sha256 and f"FD[{known.name}]" in figures:
        raise DataError(
            f"FD[{known.name}] of {path} was made by other weights: SHA-256 {recorded[:16]} is recorded, the file has "
            f"{known.sha256[:16]}; use the recorded file, or remove measures.json"
        )
