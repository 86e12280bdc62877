/* Escapes in JSON strings (RFC 8259, section 7): what they mean, and characters as UTF-8. */
#ifndef SAKER_ESCAPES_H
#define SAKER_ESCAPES_H

#include "number.h"
#include <stdint.h>
#include <string.h>

static inline int hex_digit(char c) {
    if (is_digit(c)) return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The 4 digits of \uXXXX, -1 if they are not hexadecimal. */
static inline int32_t hex_four(const char *p) {
    int32_t code = 0;
    for (int i = 0; i < 4; i++) {
        int digit = hex_digit(p[i]);
        if (digit < 0) return -1;
        code = code << 4 | digit;
    }
    return code;
}

/* The escape at p (a backslash): its code point in *code. NULL if it is not JSON, a lone surrogate included. */
static inline char *read_escape(char *p, int32_t *code) {
    static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    if (p[1] != 'u') {
        const char *letter = p[1] ? strchr(letters, p[1]) : NULL;
        if (letter == NULL) return NULL;
        *code = (unsigned char)meanings[letter - letters];
        return p + 2;
    }
    *code = hex_four(p + 2);
    if (*code < 0 || (*code & 0xFC00) == 0xDC00) return NULL;
    if ((*code & 0xFC00) != 0xD800) return p + 6;
    if (p[6] != '\\' || p[7] != 'u') return NULL;
    int32_t low = hex_four(p + 8);
    if (low < 0 || (low & 0xFC00) != 0xDC00) return NULL;
    *code = 0x10000 + ((*code & 0x3FF) << 10 | (low & 0x3FF));
    return p + 12;
}

static inline char *put_utf8(char *out, int32_t code) {
    if (code < 0x80) {
        *out++ = (char)code;
    } else if (code < 0x800) {
        *out++ = (char)(0xC0 | code >> 6);
        *out++ = (char)(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
        *out++ = (char)(0xE0 | code >> 12);
        *out++ = (char)(0x80 | (code >> 6 & 0x3F));
        *out++ = (char)(0x80 | (code & 0x3F));
    } else {
        *out++ = (char)(0xF0 | code >> 18);
        *out++ = (char)(0x80 | (code >> 12 & 0x3F));
        *out++ = (char)(0x80 | (code >> 6 & 0x3F));
        *out++ = (char)(0x80 | (code & 0x3F));
    }
    return out;
}

#endif
