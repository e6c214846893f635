"""Elementary functions that give the same bits on every machine.

libm and vector maths libraries differ in the last bit from version to version, and a last bit flips a choice sooner or
later. These are short polynomials of plain additions and multiplications in float64, rounded once to float32; the
error is below 1 ulp of float32 (tested against NumPy).
"""

from __future__ import annotations

import math

import numpy as np

from recsim_llm.simulator.jit import jit

ZERO = np.float32(0.0)
ONE = np.float32(1.0)
HALF = np.float32(0.5)
LN2 = 0.6931471805599453
STEPS_PER_UNIT = 32.0 * 1.4426950408889634
UNIT_STEP = LN2 / 32.0
SIXTH = 1.0 / 6.0
EXP_LIMIT = 87.0  # exp(+-87) is still a normal float32
POWERS_OF_TWO = np.ldexp(1.0, np.arange(-128, 129))


def _root_of_two(j: int) -> float:
    """2 ** (j / 32) from integer square roots alone: correctly rounded without any libm."""
    value = 1 << (32 * 64 + j)
    for _ in range(5):
        value = math.isqrt(value)
    return value / (1 << 64)


ROOTS_OF_TWO = np.array([_root_of_two(j) for j in range(32)])
SQRT_HALF = 0.7071067811865476


@jit
def exp64(x):
    """exp(x) in float64 arithmetic, x clipped to [-87, 87]; relative error below 1e-9.

    x = (n / 32) ln 2 + r with |r| <= ln(2) / 64: two tables for 2 ** (n / 32), three Taylor terms for exp(r), whose
    remainder is 0.011 ** 4 / 24 = 6e-10.
    """
    x = min(max(x, -EXP_LIMIT), EXP_LIMIT)
    n = np.int64(np.floor(x * STEPS_PER_UNIT + 0.5))
    r = x - np.float64(n) * UNIT_STEP
    s = 1.0 + r * (1.0 + r * (0.5 + r * SIXTH))
    return s * (ROOTS_OF_TWO[n & 31] * POWERS_OF_TWO[(n >> 5) + 128])


@jit
def exp(x):
    """The exponential function as float32."""
    return np.float32(exp64(np.float64(x)))


@jit
def log64(x):
    """ln(x) for a positive x in float64 arithmetic; relative error below 1e-9."""
    mantissa, exponent = math.frexp(np.float64(x))  # exact: no arithmetic, only bits
    if mantissa < SQRT_HALF:
        mantissa = mantissa * 2.0
        exponent = exponent - 1
    z = (mantissa - 1.0) / (mantissa + 1.0)  # ln m = 2 atanh z, |z| <= 0.172
    q = z * z
    s = 1.0 / 15.0
    s = 1.0 / 13.0 + q * s
    s = 1.0 / 11.0 + q * s
    s = 1.0 / 9.0 + q * s
    s = 1.0 / 7.0 + q * s
    s = 1.0 / 5.0 + q * s
    s = 1.0 / 3.0 + q * s
    s = 1.0 + q * s
    return 2.0 * z * s + np.float64(exponent) * LN2


@jit
def log(x):
    """ln(x) as float32, x > 0."""
    return np.float32(log64(np.float64(x)))


@jit
def sigmoid(x):
    """1 / (1 + exp(-x)) as float32."""
    return np.float32(1.0 / (1.0 + exp64(-np.float64(x))))


@jit
def normal_quantile(u):
    """The normal distribution's quantile of u in (0, 1), as float32.

    Wichura (1988), algorithm AS 241, PPND7: relative error about 1e-7 over the whole range.
    """
    p = np.float64(u)
    q = p - 0.5
    if abs(q) <= 0.425:
        r = 0.180625 - q * q
        top = ((59.109374720 * r + 159.29113202) * r + 50.434271938) * r + 3.3871327179
        bottom = ((67.187563600 * r + 78.757757664) * r + 17.895169469) * r + 1.0
        return np.float32(q * top / bottom)
    tail = p if q < 0.0 else 1.0 - p
    r = np.sqrt(-log64(tail))
    if r <= 5.0:
        r = r - 1.6
        top = ((0.17023821103 * r + 1.3067284816) * r + 2.7568153900) * r + 1.4234372777
        bottom = (0.12021132975 * r + 0.73700164250) * r + 1.0
    else:
        r = r - 5.0
        top = ((0.17337203997e-1 * r + 0.42868294337) * r + 3.0812263860) * r + 6.6579051150
        bottom = (0.12258202635e-1 * r + 0.24197894225) * r + 1.0
    value = np.float32(top / bottom)
    return -value if q < 0.0 else value
