/*
 * The rate limit of ICMP errors: 10 a second to one source and 1000 a second in all, with bursts of one second's worth.
 * The table is fixed: sources whose addresses have the same low bits share a bucket. A sender cannot make other sources
 * collide, as it could with a hash.
 */
#ifndef TARTAN_LIMITER_H
#define TARTAN_LIMITER_H

#include <stdbool.h>
#include <stdint.h>

#define LIMITER_SOURCES 4096u
#define LIMITER_PER_SOURCE 10u
#define LIMITER_TOTAL 1000u

/* Each word is the time in nanoseconds at which its bucket is full again. A new limiter is all zero. */
struct limiter {
	uint64_t total;
	uint64_t source[LIMITER_SOURCES];
};

/* Takes one token for the source, or none if one of the two buckets is empty. `now_ns` must not go back. */
bool limiter_take(struct limiter *limiter, uint32_t source, uint64_t now_ns);

#endif
