// SPDX-License-Identifier: Apache-2.0
#include "devices/checksum.h"

#include <string.h>

// 32-bit words into 64-bit sums: no carry is lost before 2^32 words, and compilers make vectors
// of it.
static uint64_t sum_words(const uint8_t *p, size_t n_words)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n_words; i++) {
        uint32_t word;
        memcpy(&word, p + 4 * i, sizeof(word));
        sum += word;
    }
    return sum;
}

static uint64_t sum_tail(const uint8_t *p, size_t bytes)
{
    uint32_t word = 0; // padded with zeros, as RFC 1071 has it
    for (size_t i = 0; i < bytes; i++)
        word |= (uint32_t)p[i] << 8 * i;
    return word;
}

static uint16_t fold(uint64_t sum)
{
    sum = (sum & UINT32_MAX) + (sum >> 32);
    sum = (sum & UINT16_MAX) + (sum >> 16);
    sum = (sum & UINT16_MAX) + (sum >> 16);
    return (uint16_t)((sum & UINT16_MAX) + (sum >> 16));
}

void checksum_add(struct checksum *c, const void *data, size_t bytes)
{
    const uint8_t *p = data;
    uint64_t sum = sum_words(p, bytes / 4) + sum_tail(p + bytes / 4 * 4, bytes % 4);
    // Bytes that start in the middle of a word are in the other half of each.
    c->sum += c->is_odd ? __builtin_bswap16(fold(sum)) : fold(sum);
    c->is_odd ^= bytes % 2;
}

uint16_t checksum_sum(const struct checksum *c)
{
    return __builtin_bswap16(fold(c->sum));
}

uint16_t checksum_field(const struct checksum *c)
{
    uint16_t sum = (uint16_t)~checksum_sum(c);
    return sum ? sum : UINT16_MAX;
}
