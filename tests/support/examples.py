"""How many examples a test tries: as many as it asks for, or a tenth in the quick profile."""

from __future__ import annotations

from hypothesis import settings


def examples(thorough: int) -> int:
    return thorough if _is_thorough() else max(thorough // 10, 5)


def seeds(thorough: int) -> range:
    """For a test whose every example takes seconds."""
    return range(thorough if _is_thorough() else max(thorough // 10, 1))


def _is_thorough() -> bool:
    return settings.get_current_profile_name() == "thorough"
