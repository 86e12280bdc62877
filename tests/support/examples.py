"""How many examples Hypothesis tries: as many as a test asks for, or a tenth in the quick profile."""

from __future__ import annotations

from hypothesis import settings


def examples(thorough: int) -> int:
    return thorough if settings.get_current_profile_name() == "thorough" else max(thorough // 10, 5)
