"""Identifies the sherpa-onnx model in a folder by the names of its files.

The layouts are those of the archives that the sherpa-onnx project publishes. Each has its ``tokens.txt`` (whisper:
``<size>-tokens.txt``) beside the models. Where a model exists both as float and as ``int8``, ``int8`` is used.

============  ==========================================================  ==============================
layout        files                                                       languages
============  ==========================================================  ==============================
transducer    ``encoder*.onnx``, ``decoder*.onnx``, ``joiner*.onnx``      as trained (zipformer, ...)
sense-voice   ``model*.onnx``, folder named ``*sense-voice*``             zh, en, ja, ko, yue
paraformer    ``model*.onnx``, folder named ``*paraformer*``              zh, en
whisper       ``*encoder*.onnx``, ``*decoder*.onnx``, no joiner           as trained, detected
============  ==========================================================  ==============================

A folder with a ``model*.onnx`` whose name contains neither word may hold a file ``layout.txt`` that contains
``sense-voice`` or ``paraformer``. Only offline (non-streaming) models are supported.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from aiproject.codes import Detail
from aiproject.errors import Misconfigured

__all__ = ["SpeechModel", "find_speech_model"]


@dataclass(frozen=True)
class SpeechModel:
    """An identified model.

    Attributes:
        layout: ``transducer``, ``sense-voice``, ``paraformer`` or ``whisper``.
        factory: the class method of ``sherpa_onnx.OfflineRecognizer`` that loads it.
        arguments: the keyword arguments of that method.
    """

    layout: str
    factory: str
    arguments: dict[str, str | bool]


def find_speech_model(folder: Path) -> SpeechModel:
    """Identify the model in a folder.

    Raises:
        Misconfigured: the folder does not exist, or holds no supported layout.
    """
    if not folder.is_dir():
        raise Misconfigured(Detail.SPEECH_FOLDER_MISSING, path=str(folder))
    files = sorted(path for path in folder.iterdir() if path.is_file())
    models = [path for path in files if path.suffix == ".onnx"]
    tokens = [path for path in files if path.name.endswith("tokens.txt")]
    if models and tokens:
        encoder, decoder = _choose(models, "encoder"), _choose(models, "decoder")
        joiner, single = _choose(models, "joiner"), _choose(models, "model")
        shared: dict[str, str | bool] = {"tokens": str(tokens[0])}
        if encoder and decoder and joiner:
            return SpeechModel(
                "transducer",
                "from_transducer",
                {"encoder": str(encoder), "decoder": str(decoder), "joiner": str(joiner), **shared},
            )
        if encoder and decoder:
            # An empty language makes whisper detect it.
            return SpeechModel(
                "whisper",
                "from_whisper",
                {"encoder": str(encoder), "decoder": str(decoder), "language": "", **shared},
            )
        layout = _named_layout(folder, files)
        if single and layout == "sense-voice":
            return SpeechModel(layout, "from_sense_voice", {"model": str(single), "use_itn": True, **shared})
        if single and layout == "paraformer":
            return SpeechModel(layout, "from_paraformer", {"paraformer": str(single), **shared})
    raise Misconfigured(Detail.SPEECH_MODEL_UNKNOWN, path=str(folder))


def _choose(models: Iterable[Path], word: str) -> Path | None:
    """Return the model file whose name contains ``word``; of several, the ``int8`` one."""
    fitting = [path for path in models if word in path.name.lower()]
    return min(fitting, key=lambda path: ("int8" not in path.name, path.name), default=None)


def _named_layout(folder: Path, files: Iterable[Path]) -> str:
    name = folder.resolve().name
    for path in files:
        if path.name == "layout.txt":
            name = path.read_text(encoding="utf-8", errors="replace")[:200]
    name = name.lower().replace("_", "-").replace("sensevoice", "sense-voice")
    return next((layout for layout in ("sense-voice", "paraformer") if layout in name), "")
