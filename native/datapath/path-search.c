/* See path-search.h. */
#include "path-search.h"

/* Nothing shorter is asked for: a packet of 68 bytes passes everywhere (RFC 791). */
#define SHORTEST 68u
#define OUTER 28u
/* How long the kernel's word counts (peer-blocks.h). */
#define LEARNT_NS UINT64_C(5000000000)

static void rest(struct path_search *s, uint64_t now)
{
	s->step = PATH_ASKS_LONGEST;
	s->next_ns = now + PATH_SEARCH_REST_NS;
}

static void begin_search(struct path_search *s)
{
	s->step = PATH_SEARCHES;
	s->rounds = 0;
}

/* Whether nothing lies between what passes and what fails. */
static bool is_found(const struct path_search *s)
{
	const uint32_t low = s->passes > SHORTEST ? s->passes : SHORTEST;

	return low + 1 >= s->fails;
}

void path_search_passed(struct path_search *s, uint16_t bytes, uint64_t now)
{
	s->asking = 0;
	s->next_ns = now;
	if (bytes >= s->longest) {
		s->passes = bytes;
		rest(s, now);
		return;
	}
	if (bytes > s->passes)
		s->passes = bytes;
	if (s->step == PATH_ASKS_KNOWN && ++s->rounds < PATH_SEARCH_ROUNDS) {
		rest(s, now);
		return;
	}
	if (s->step == PATH_ASKS_KNOWN)
		begin_search(s);
	if (is_found(s))
		rest(s, now);
}

void path_search_failed(struct path_search *s, uint16_t bytes, uint64_t now)
{
	s->asking = 0;
	s->next_ns = now;
	s->fails = bytes;
	if (s->passes >= bytes)
		s->passes = 0;
	if (s->step == PATH_ASKS_LONGEST && s->passes > 0)
		s->step = PATH_ASKS_KNOWN;
	else if (s->step != PATH_SEARCHES)
		begin_search(s);
	if (s->step == PATH_SEARCHES && is_found(s))
		rest(s, now);
}

/*
 * The usual lengths of outer packets: Ethernet, PPPoE, tunnels, and the least of IPv6 and IPv4. The middle one of those
 * that may pass; 0: none is left.
 */
static uint16_t usual_between(uint32_t passes, uint32_t fails)
{
	static const uint16_t usual[] = { 8951, 1500, 1492, 1480, 1476, 1450, 1420, 1400, 1380, 1280, 576 };
	const uint32_t count = sizeof usual / sizeof usual[0];
	uint32_t first = 0, end = 0;

	while (first < count && usual[first] - OUTER >= fails)
		first++;
	for (end = first; end < count && usual[end] - OUTER > passes; end++)
		;
	return first < end ? (uint16_t)(usual[(first + end) / 2] - OUTER) : 0;
}

static uint16_t length_to_try(const struct path_search *s, uint32_t learnt)
{
	const uint32_t low = s->passes > SHORTEST ? s->passes : SHORTEST;

	if (s->step == PATH_ASKS_LONGEST)
		return s->longest;
	if (learnt > low && learnt < s->fails)
		return (uint16_t)learnt;
	if (s->step == PATH_ASKS_KNOWN)
		return s->passes;
	const uint16_t usual = usual_between(s->passes, s->fails);
	return usual != 0 ? usual : (uint16_t)((low + s->fails) / 2);
}

/* What became of a question without an answer; whether another may be asked. */
static bool settle(struct path_search *s, uint64_t answered_ns, uint64_t now)
{
	if (s->asking == 0)
		return true;
	if (now < s->asked_ns + PATH_SEARCH_ANSWER_NS)
		return false;
	/* A peer that answers nothing says nothing of the path. */
	if (answered_ns < s->asked_ns)
		return now >= s->asked_ns + PATH_SEARCH_REST_NS;
	if (s->tries >= PATH_SEARCH_TRIES)
		path_search_failed(s, s->asking, now);
	return true;
}

uint16_t path_search_next(struct path_search *s, uint16_t longest, uint32_t learnt, uint64_t answered_ns, uint64_t now)
{
	if (s->longest != longest)
		*s = (struct path_search){ .longest = longest };
	/* Data has met a narrower path. */
	if (learnt < s->passes && s->asking == 0 && now >= s->asked_ns + LEARNT_NS)
		s->next_ns = 0;
	if (longest <= SHORTEST || !settle(s, answered_ns, now) || now < s->next_ns)
		return 0;
	if (s->step == PATH_SEARCHES && s->asking == 0 && learnt == s->passes) {
		rest(s, now);
		return 0;
	}
	return s->asking != 0 ? s->asking : length_to_try(s, learnt);
}

void path_search_sent(struct path_search *s, uint16_t bytes, uint64_t now)
{
	s->tries = s->asking == bytes ? (uint8_t)(s->tries + 1) : 1;
	s->asking = bytes;
	s->asked_ns = now;
	s->next_ns = now + PATH_SEARCH_ANSWER_NS;
}
