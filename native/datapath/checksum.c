/*
 * Sums over whole packets; see checksum.h. They are computed in the processor's byte order and swapped at the end,
 * which RFC 1071 section 2 (B) allows.
 */
#include "checksum.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the result is swapped for little-endian processors");

static uint64_t load64(const uint8_t *bytes)
{
	uint64_t word;

	memcpy(&word, bytes, sizeof word);
	return word;
}

static uint16_t fold(uint64_t sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return __builtin_bswap16((uint16_t)sum);
}

/* Adds the carry at the low end again, which is right because 2^64 - 1 is a multiple of 2^16 - 1. */
static uint64_t add64(uint64_t a, uint64_t b)
{
	uint64_t sum;

	return __builtin_add_overflow(a, b, &sum) ? sum + 1 : sum;
}

static uint64_t sum_tail(uint64_t sum, const uint8_t *bytes, size_t count)
{
	uint64_t last = 0;

	for (; count >= 8; bytes += 8, count -= 8)
		sum = add64(sum, load64(bytes));
	memcpy(&last, bytes, count);
	return add64(sum, last);
}

/* Uses four sums, so that no addition waits for the carry of the one before. */
static uint64_t sum_scalar(const uint8_t *bytes, size_t count)
{
	uint64_t a = 0, b = 0, c = 0, d = 0;

	for (; count >= 32; bytes += 32, count -= 32) {
		a = add64(a, load64(bytes));
		b = add64(b, load64(bytes + 8));
		c = add64(c, load64(bytes + 16));
		d = add64(d, load64(bytes + 24));
	}
	return sum_tail(add64(add64(a, b), add64(c, d)), bytes, count);
}

#if defined(__x86_64__)
/* Adds 32-bit words into 64-bit lanes. No carry is lost in fewer than 2^32 additions. */
__attribute__((target("avx2"))) static uint64_t sum_avx2(const uint8_t *bytes, size_t count)
{
	const __m256i low = _mm256_set1_epi64x(0xffffffff);
	__m256i a = _mm256_setzero_si256(), b = a;
	uint64_t lanes[4], sum = 0;

	for (; count >= 64; bytes += 64, count -= 64) {
		__m256i x = _mm256_loadu_si256((const void *)bytes);
		__m256i y = _mm256_loadu_si256((const void *)(bytes + 32));
		a = _mm256_add_epi64(a, _mm256_add_epi64(_mm256_and_si256(x, low), _mm256_srli_epi64(x, 32)));
		b = _mm256_add_epi64(b, _mm256_add_epi64(_mm256_and_si256(y, low), _mm256_srli_epi64(y, 32)));
	}
	_mm256_storeu_si256((void *)lanes, _mm256_add_epi64(a, b));
	for (size_t i = 0; i < 4; i++)
		sum = add64(sum, lanes[i]);
	return sum_tail(sum, bytes, count);
}
#endif

/* How much of the range lies in the packet. */
static size_t present(const struct packet *p, size_t at, size_t bytes)
{
	size_t left = at < p->length ? p->length - at : 0;

	return bytes < left ? bytes : left;
}

uint16_t checksum_scalar(const struct packet *p, size_t at, size_t bytes)
{
	size_t count = present(p, at, bytes);

	return count == 0 ? 0 : fold(sum_scalar(p->bytes + at, count));
}

uint16_t checksum_fast(const struct packet *p, size_t at, size_t bytes)
{
#if defined(__x86_64__)
	size_t count = present(p, at, bytes);

	if (count >= 64 && __builtin_cpu_supports("avx2"))
		return fold(sum_avx2(p->bytes + at, count));
#endif
	return checksum_scalar(p, at, bytes);
}
