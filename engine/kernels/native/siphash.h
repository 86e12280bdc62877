/* SipHash-2-4 with 128 bits (Aumasson, Bernstein: https://github.com/veorq/SipHash). */
#ifndef SIPHASH_H
#define SIPHASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t rotated(uint64_t x, int by) { return x << by | x >> (64 - by); }

#define SIP_ROUND(v)                                                                               \
    (v[0] += v[1], v[1] = rotated(v[1], 13) ^ v[0], v[0] = rotated(v[0], 32), v[2] += v[3],        \
     v[3] = rotated(v[3], 16) ^ v[2], v[0] += v[3], v[3] = rotated(v[3], 21) ^ v[0], v[2] += v[1], \
     v[1] = rotated(v[1], 17) ^ v[2], v[2] = rotated(v[2], 32))

static inline void siphash128(const uint64_t key[2], const void *data, size_t length, uint64_t out[2]) {
    uint64_t v[4] = {key[0] ^ 0x736f6d6570736575u, key[1] ^ 0x646f72616e646f6du ^ 0xee, key[0] ^ 0x6c7967656e657261u,
                     key[1] ^ 0x7465646279746573u};
    const char *bytes = data;
    for (size_t at = 0, is_last = 0; !is_last; at += 8) {
        uint64_t word = (uint64_t)length << 56;
        is_last = length - at < 8;
        if (is_last) {
            uint64_t rest = 0;
            memcpy(&rest, bytes + at, length - at);
            word |= rest;
        } else memcpy(&word, bytes + at, 8);
        v[3] ^= word;
        SIP_ROUND(v);
        SIP_ROUND(v);
        v[0] ^= word;
    }
    v[2] ^= 0xee;
    for (int i = 0; i < 4; i++) SIP_ROUND(v);
    out[0] = v[0] ^ v[1] ^ v[2] ^ v[3];
    v[1] ^= 0xdd;
    for (int i = 0; i < 4; i++) SIP_ROUND(v);
    out[1] = v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* The identity of a value (kernels/identity.py): its type as a character, and what distinguishes it from others of the
   type. Never zeros. */
static inline void identity_of(const uint64_t key[2], char type, const void *data, size_t length, uint64_t out[2]) {
    const uint64_t of_type[2] = {key[0], key[1] ^ (unsigned char)type};
    siphash128(of_type, data, length, out);
    out[0] |= (out[0] | out[1]) == 0;
}

#endif
