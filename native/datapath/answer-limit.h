/*
 * How many questions of one peer are answered: ANSWERS_PER_SECOND. Of more, which ones is random, so that whoever forges
 * the peer's address cannot silence the peer. Pure.
 */
#ifndef TARTAN_ANSWER_LIMIT_H
#define TARTAN_ANSWER_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

#define ANSWERS_PER_SECOND 10u

struct answer_limit {
	uint32_t second;
	uint32_t questions; /* of this second */
	uint32_t before;    /* questions of the second before */
	uint32_t answers;   /* of this second */
};

/* Whether to answer the question that has come. `random` is any 32 random bits. */
bool answer_limit_take(struct answer_limit *limit, uint32_t second, uint32_t random);

#endif
