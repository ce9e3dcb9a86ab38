"""What others do with an update, written out so that it runs here beside ours.

- `Ckks` "naive-ckks": TenSEAL vectors with the public key, N=8192, [60, 40, 40, 60],
  scale 2^40: the context that FedML-HE ships, used as its `core/fhe/fhe_agg.py` does.
- `Ckks` "nvflare-default": the defaults of NVFlare's `lighter/impl/he.py`, N=8192,
  [60, 40, 40], scale 2^40, symmetric.
- `SecAggPlus`: Flower's arithmetic (`flwr.common.secure_aggregation`): stochastic
  rounding, a self mask and one mask a neighbour, int64 on the wire. Key agreement and
  shares of keys are left out, for they do not grow with the model. The server learns
  the sum.

The whole update is one vector, which is kinder to CKKS than one vector a layer.
"""

# ruff: noqa: PLC0415 - a route imports what it needs, no other
# ruff: noqa: ARG002 - signatures are `phases.Route`'s

import hashlib
import io
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

FP32_BYTES = 4
STEPS_20 = 2.0**19 - 1
"""Steps a unit of our profile 20: CKKS has none of its own."""

Array = NDArray[Any]


class Ckks:
    """TenSEAL CKKS vectors: the weight 1/n before encryption, the server only adds."""

    dtype = np.float32
    one_for_all = True
    """A ciphertext may stand for several sites: addition looks at none of it."""

    def __init__(self, sites: int, primes: list[int], *, symmetric: bool) -> None:
        import tenseal

        self._tenseal = tenseal
        self._sites = sites
        kinds = tenseal.ENCRYPTION_TYPE
        self._context = tenseal.context(
            tenseal.SCHEME_TYPE.CKKS,
            poly_modulus_degree=8192,
            coeff_mod_bit_sizes=primes,
            encryption_type=kinds.SYMMETRIC if symmetric else kinds.ASYMMETRIC,
        )
        self._context.global_scale = 2**40

    def encrypt(self, update: Array, site: int) -> Iterator[bytes]:
        weighted = update * (1.0 / self._sites)
        yield bytes(self._tenseal.ckks_vector(self._context, weighted).serialize())

    def encoded(self, update: Array, site: int) -> Array:
        return update.astype(np.float64) / self._sites

    def aggregate(self, uploads: Iterable[bytes]) -> Iterator[bytes]:
        total = None
        for data in uploads:
            vector = self._read(data)
            if total is None:
                total = vector
            else:
                total.add_(vector)
        yield bytes(total.serialize()) if total is not None else b""

    def decrypt(self, data: bytes) -> Array:
        return np.asarray(self._read(data).decrypt(), dtype=np.float64)

    def error(self, opened: Array, encoded: Array) -> float:
        return float(np.abs(opened - encoded).max()) * self._sites * STEPS_20

    def downlink(self, total: int, params: int) -> int:
        return total

    def _read(self, data: bytes) -> Any:
        return self._tenseal.ckks_vector_from(self._context, data)


class SecAggPlus:
    """The arithmetic of Flower's SecAgg+ with its default numbers; nobody drops out."""

    dtype = np.float32
    one_for_all = False
    clipping_range = 8.0
    quantization_range = 2**22
    modulus_range = 2**32

    def __init__(self, sites: int, neighbours: int) -> None:
        from flwr.common.secure_aggregation import (  # noqa: TID251 - the peer itself
            ndarrays_arithmetic,
            quantization,
            secaggplus_utils,
        )

        self._sites = sites
        self._neighbours = min(neighbours, sites - 1)
        self._arith = ndarrays_arithmetic
        self._quantization = quantization
        self._draw = secaggplus_utils.pseudo_rand_gen
        self._shape: tuple[int, ...] = ()
        self._rounded: Array = np.zeros(0)

    def encrypt(self, update: Array, site: int) -> Iterator[bytes]:
        vector = self._quantization.quantize(
            [update], self.clipping_range, self.quantization_range
        )
        self._rounded, self._shape = vector[0], vector[0].shape
        vector = self._arith.parameters_addition(vector, self._self_mask(site))
        for other in self._peers(site):
            mask = self._mask(b"pair", min(site, other), max(site, other))
            combine = (
                self._arith.parameters_addition
                if site > other
                else self._arith.parameters_subtraction
            )
            vector = combine(vector, mask)
        yield _npy(self._arith.parameters_mod(vector, self.modulus_range)[0])

    def encoded(self, update: Array, site: int) -> Array:
        """The integers `encrypt` drew for the last update: its rounding is random."""
        return self._rounded.astype(np.int64)

    def aggregate(self, uploads: Iterable[bytes]) -> Iterator[bytes]:
        total: list[Any] = []
        for data in uploads:
            vector = [_array(data)]
            total = self._arith.parameters_addition(total, vector) if total else vector
        total = self._arith.parameters_mod(total, self.modulus_range)
        for site in range(self._sites):  # every self mask is drawn again
            mask = self._self_mask(site)
            total = self._arith.parameters_subtraction(total, mask)
        yield _npy(self._arith.parameters_mod(total, self.modulus_range)[0])

    def decrypt(self, data: bytes) -> Array:
        values: Array = self._quantization.dequantize(
            [_array(data)], self.clipping_range, self.quantization_range
        )[0]
        values -= (self._sites - 1) * self.clipping_range
        return values / self._sites

    def error(self, opened: Array, encoded: Array) -> float:
        scale = self.quantization_range / (2 * self.clipping_range)
        steps = (opened * self._sites + self._sites * self.clipping_range) * scale
        return float(np.abs(np.rint(steps) - encoded).max())

    def downlink(self, total: int, params: int) -> int:
        # The server holds the sum in the clear and sends a plain model.
        return FP32_BYTES * params

    def _peers(self, site: int) -> list[int]:
        """The nearest sites on a ring."""
        half, odd = divmod(self._neighbours, 2)
        steps = [*range(1, half + 1), *range(-half, 0)]
        if odd:
            steps.append(self._sites // 2)
        return sorted({(site + step) % self._sites for step in steps} - {site})

    def _self_mask(self, site: int) -> list[Any]:
        return self._mask(b"self", site, site)

    def _mask(self, label: bytes, low: int, high: int) -> list[Any]:
        seed = hashlib.sha256(label + bytes([low, high])).digest()
        drawn: list[Any] = self._draw(seed, self.modulus_range, [self._shape])
        return drawn


def _npy(array: Array) -> bytes:
    """As Flower serialises: the .npy format, int64 here."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _array(data: bytes) -> Array:
    loaded: Array = np.load(io.BytesIO(data), allow_pickle=False)
    return loaded
