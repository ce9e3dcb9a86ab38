"""Ways to turn an update into integers that are compared."""

from dataclasses import dataclass

from fedsecure.encoding import profile


@dataclass(frozen=True)
class Arm:
    """One way to turn updates into integers; profile "" is fp32."""

    profile: str = ""
    rounding: str = "nearest"
    feedback: bool = False
    ranges: str = "config"
    contributors: int = 16

    @property
    def bits(self) -> int:
        return profile(self.profile).value_bits(self.contributors)

    @property
    def name(self) -> str:
        if not self.profile:
            return "fp32"
        return f"{self.bits} bit, {self.way}"

    @property
    def way(self) -> str:
        how = self.rounding + (" + feedback" if self.feedback else "")
        return f"{how}, range from {self.ranges}"


WAYS = [
    ("nearest", False, "config"),
    ("stochastic", False, "config"),
    ("nearest", True, "config"),
    ("stochastic", True, "config"),
    ("nearest", False, "aggregate"),
    ("stochastic", True, "aggregate"),
]
# 20 bits lose nothing that can be seen: three ways say that. Five bits are what the
# profile 8 leaves for 93 sites, and show that the experiment would see a loss.
ARMS = [
    Arm(),
    *(Arm("20", *WAYS[way]) for way in (0, 1, 5)),
    *(Arm(bits, *way) for bits in ("12", "8") for way in WAYS),
    *(Arm("8", *WAYS[way], contributors=93) for way in (0, 4, 5)),
]
