"""Makes powers.h: the powers of ten from -342 to 308 as 128-bit mantissas, exact integer arithmetic throughout.

Entry q is 5**q (10**q without its power of two), scaled so that bit 127 is set: truncated for q >= 0, rounded up for
q < 0, which is what the proof of the Eisel-Lemire algorithm asks for (D. Lemire, "Number Parsing at a Gigabyte per
Second", 2021, section 5).
"""

SMALLEST, LARGEST = -342, 308


def scaled_power(q: int) -> int:
    """5**q as an integer of exactly 128 bits."""
    power: int = 5 ** abs(q)
    if q >= 0:
        shift = 128 - power.bit_length()
        return power << shift if shift >= 0 else power >> -shift
    bits = 2 * power.bit_length() + 128
    reciprocal = (1 << bits) // power + 1
    return reciprocal >> (reciprocal.bit_length() - 128)


def powers() -> str:
    """The text of powers.h."""
    lines = [
        "/* Made by make_powers.py. */",
        f"#define SMALLEST_POWER ({SMALLEST})",
        f"#define LARGEST_POWER {LARGEST}",
        "static const uint64_t powers_of_five[][2] = { /* high, low */",
    ]
    for q in range(SMALLEST, LARGEST + 1):
        power = scaled_power(q)
        lines.append(f"    {{0x{power >> 64:016X}u, 0x{power & (2**64 - 1):016X}u}},")
    return "\n".join([*lines, "};", ""])
