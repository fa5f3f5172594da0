"""Whether an Ed25519 signature is good (RFC 8032 section 5.1.7): by `cryptography` where it is installed,
else by the RFC's arithmetic in plain Python.

The plain way takes some milliseconds a signature and is not made for secrets: it only verifies, and all that
it reads is public.
"""

from hashlib import sha512

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    HAS_LIBRARY = True
except ImportError:  # an outsider's machine
    HAS_LIBRARY = False

_P = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, _P) % _P
_SQRT_MINUS_1 = pow(2, (_P - 1) // 4, _P)
Point = tuple[int, int, int, int]  # extended homogeneous coordinates (X, Y, Z, T)
_ZERO: Point = (0, 1, 1, 0)


def is_signed(public: bytes, signature: bytes, text: bytes) -> bool:
    """Whether *signature* (64 bytes) of *text* was made with the private key of *public* (32 bytes)."""
    if not HAS_LIBRARY:
        return is_signed_plainly(public, signature, text)
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, text)
    except (InvalidSignature, ValueError):
        return False
    return True


def is_signed_plainly(public: bytes, signature: bytes, text: bytes) -> bool:
    """The same without any library."""
    if len(public) != 32 or len(signature) != 64:
        return False
    key, scalar = _decoded(public), int.from_bytes(signature[32:], "little")
    if key is None or scalar >= _ORDER:  # a larger one would be a second signature for the same text
        return False
    challenge = int.from_bytes(sha512(signature[:32] + public + text).digest(), "little") % _ORDER
    x, y, z, t = key
    # R = sB - hA: the commitment is computed and its encoding compared, never decoded.
    return (
        _encoded(_add(_times(scalar, _BASE), _times(challenge, (-x % _P, y, z, -t % _P)))) == signature[:32]
    )


def _add(a: Point, b: Point) -> Point:
    """RFC 8032 section 5.1.4; holds for equal points too."""
    left, right = (a[1] - a[0]) * (b[1] - b[0]) % _P, (a[1] + a[0]) * (b[1] + b[0]) % _P
    c, d = 2 * a[3] * b[3] * _D % _P, 2 * a[2] * b[2] % _P
    e, f, g, h = right - left, d - c, d + c, right + left
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _times(scalar: int, point: Point) -> Point:
    product = _ZERO
    while scalar:
        if scalar & 1:
            product = _add(product, point)
        point = _add(point, point)
        scalar >>= 1
    return product


def _encoded(point: Point) -> bytes:
    inverse = pow(point[2], -1, _P)
    x, y = point[0] * inverse % _P, point[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _decoded(data: bytes) -> Point | None:
    """RFC 8032 section 5.1.3; None when *data* is no point."""
    number = int.from_bytes(data, "little")
    y, sign = number & (1 << 255) - 1, number >> 255
    if y >= _P:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _SQRT_MINUS_1 % _P
    if (x * x - square) % _P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = _P - x
    return x, y, 1, x * y % _P


_BASE = _decoded((4 * pow(5, -1, _P) % _P).to_bytes(32, "little")) or _ZERO
