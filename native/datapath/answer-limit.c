/* See answer-limit.h. */
#include "answer-limit.h"

static uint32_t greatest(uint32_t a, uint32_t b, uint32_t c)
{
	const uint32_t most = a > b ? a : b;

	return most > c ? most : c;
}

bool answer_limit_take(struct answer_limit *l, uint32_t second, uint32_t random)
{
	if (l->second != second) {
		*l = (struct answer_limit){ .second = second, .before = l->second + 1 == second ? l->questions : 0 };
	}
	if (l->questions < UINT32_MAX)
		l->questions++;
	/* As many are likely to come in this second as in the one before. */
	const uint32_t expected = greatest(l->questions, l->before, ANSWERS_PER_SECOND);
	if (l->answers >= ANSWERS_PER_SECOND || random % expected >= ANSWERS_PER_SECOND)
		return false;
	l->answers++;
	return true;
}
