"""Numbers as they are read."""


def formatted(value: float, unit: str) -> str:
    """A value with its unit: `7,012/s`, `1.25 ms`, `840 B`."""
    match unit:
        case "/s":
            return f"{value:,.0f}/s"
        case "s":
            return _seconds(value)
        case "bytes":
            return f"{value:,.0f} B" if value < 10_000 else f"{value / 1e3:,.1f} kB"
    return f"{value:.2f}"


def _seconds(value: float) -> str:
    if value < 0.001:
        return f"{value * 1e6:.0f} µs"
    return f"{value * 1e3:.2f} ms" if value < 0.1 else f"{value * 1e3:,.0f} ms"
