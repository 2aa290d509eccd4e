/*
 * How many ICMP errors may leave: 10 a second about one source and 1000 a second in all, each with a burst of one
 * second's worth. A fixed table, no allocation: sources share a bucket when the low bits of their addresses agree, so
 * that no one can gain by making others collide.
 */
#ifndef TARTAN_LIMITER_H
#define TARTAN_LIMITER_H

#include <stdbool.h>
#include <stdint.h>

#define LIMITER_SOURCES 4096u
#define LIMITER_PER_SOURCE 10u
#define LIMITER_TOTAL 1000u

/* Each word is the time in nanoseconds at which its bucket is full again; all zero is a fresh limiter. */
struct limiter {
	uint64_t total;
	uint64_t source[LIMITER_SOURCES];
};

/* Takes one token for the source, or nothing. `now_ns` of one clock that does not go back. */
bool limiter_take(struct limiter *limiter, uint32_t source, uint64_t now_ns);

#endif
