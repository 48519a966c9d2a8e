"""The first numbers of aigc's host generator, by an independent implementation of ChaCha12 keyed by
SHA-256.

    python rng.py     # prints the constants of crates/aigc-core/src/rng/mod.rs
"""
import hashlib, struct


def rotl(x, n):
    return ((x << n) | (x >> (32 - n))) & 0xFFFFFFFF


def block(key, counter, rounds=12):
    state = list(struct.unpack("<4I", b"expand 32-byte k")) + list(struct.unpack("<8I", key)) + [counter & 0xFFFFFFFF, counter >> 32, 0, 0]
    w = state[:]

    def quarter(a, b, c, d):
        for x, y, z, n in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            w[x] = (w[x] + w[y]) & 0xFFFFFFFF
            w[z] = rotl(w[z] ^ w[x], n)

    for _ in range(rounds // 2):
        for i in range(4):
            quarter(i, 4 + i, 8 + i, 12 + i)
        for i in range(4):
            quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return [(a + b) & 0xFFFFFFFF for a, b in zip(w, state)]


def bits(seed, purpose="", index=0, n=1):
    key = hashlib.sha256(struct.pack("<QQ", seed, index) + purpose.encode()).digest()
    words = block(key, 0)
    return [words[2 * i] | words[2 * i + 1] << 32 for i in range(n)]


print("Rng::new(7)               ", bits(7, n=2))
print('Rng::stream(7, "noise", 3)', bits(7, "noise", 3, n=2))
