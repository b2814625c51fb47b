"""What people upload, made fit for the platform: sound and pictures, checked by content and within its limits."""

from __future__ import annotations

from aiproject.media.audio import Pcm, prepare_audio
from aiproject.media.picture import Picture, prepare_picture

__all__ = ["Pcm", "Picture", "prepare_audio", "prepare_picture"]
