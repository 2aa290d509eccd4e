/*
 * Shared by all C tests: a suite that counts, a check that prints the failing line, and a small random generator with a
 * fixed seed, so that a failure can be repeated.
 */
#ifndef TARTAN_TEST_H
#define TARTAN_TEST_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct suite {
	const char *name;
	unsigned long passed;
	unsigned long failed;
	uint64_t random;
};

#define FAILURES_SHOWN 20

static inline bool suite_check(struct suite *s, bool holds, const char *file, int line, const char *text)
{
	if (holds) {
		s->passed++;
	} else {
		if (s->failed++ < FAILURES_SHOWN)
			printf("%s:%d: %s\n", file, line, text);
	}
	return holds;
}

#define CHECK(suite, condition) suite_check(suite, (condition), __FILE__, __LINE__, #condition)
/* The same, with a text that names the case. */
#define CHECK_CASE(suite, condition, text) suite_check(suite, (condition), __FILE__, __LINE__, text)

static inline int suite_end(const struct suite *s)
{
	printf("%s: %lu passed, %lu failed\n", s->name, s->passed, s->failed);
	return s->failed == 0 ? 0 : 1;
}

/* splitmix64 */
static inline uint32_t suite_random(struct suite *s)
{
	uint64_t z = (s->random += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return (uint32_t)(z >> 32);
}

static inline uint32_t suite_below(struct suite *s, uint32_t limit)
{
	return suite_random(s) % limit;
}

#endif
