/* path-search.c against paths that carry so much, with and without an ICMP error, and with loss. */
#include "path-search.h"
#include "ipv4.h"
#include "test.h"

#define SECOND UINT64_C(1000000000)

struct path {
	uint16_t carries;
	bool is_told;         /* the kernel refuses what is too long, and names the length */
	bool is_dead;         /* no answer to anything */
	uint32_t loss;        /* percent */
	uint32_t questions;
	uint64_t now;
};

/* Lets `seconds` pass, asked ten times a second. A peer that lives answers each short question at once. */
static void pass(struct suite *s, struct path_search *search, struct path *path, uint16_t longest, uint64_t seconds)
{
	uint64_t answered = path->is_dead ? 0 : path->now;

	for (const uint64_t end = path->now + seconds * SECOND; path->now < end; path->now += SECOND / 10) {
		const uint32_t learnt = path->is_told ? path->carries : IPV4_BYTES_MAX;
		const uint16_t bytes = path_search_next(search, longest, learnt, answered, path->now);
		if (bytes == 0)
			continue;
		if (!path->is_dead)
			answered = path->now;
		path->questions++;
		CHECK(s, bytes <= longest && bytes > 60);
		path_search_sent(search, bytes, path->now);
		if (bytes > path->carries && path->is_told)
			path_search_failed(search, bytes, path->now);
		else if (bytes <= path->carries && !path->is_dead && suite_below(s, 100) >= path->loss)
			path_search_passed(search, bytes, path->now);
	}
}

static void finds_every_length(struct suite *s)
{
	for (uint16_t carries = 69; carries <= 1472; carries = (uint16_t)(carries + 1 + suite_below(s, 9))) {
		struct path_search search = { 0 };
		struct path path = { .carries = carries, .now = 5000 * SECOND };
		pass(s, &search, &path, 1472, 60);
		CHECK(s, search.passes == carries);
		CHECK(s, path.questions <= 40);
	}
}

static void needs_one_question_each_quarter_minute(struct suite *s)
{
	struct path_search search = { 0 };
	struct path path = { .carries = 1472, .now = 5000 * SECOND };

	pass(s, &search, &path, 1472, 1);
	CHECK(s, search.passes == 1472 && path.questions == 1);
	pass(s, &search, &path, 1472, 300);
	CHECK(s, path.questions == 21);
	/* A narrower path is found within the quarter minute and a few seconds, and then costs two a round and the longest. */
	path.carries = 1372;
	pass(s, &search, &path, 1472, 25);
	CHECK(s, search.passes == 1372);
	path.questions = 0;
	pass(s, &search, &path, 1472, 120);
	CHECK(s, search.passes == 1372 && path.questions <= 24);
	/* A wider one, to the whole or in part. */
	path.carries = 1472;
	pass(s, &search, &path, 1472, 18);
	CHECK(s, search.passes == 1472);
	path.carries = 1372;
	pass(s, &search, &path, 1472, 60);
	path.carries = 1422;
	pass(s, &search, &path, 1472, 400);
	CHECK(s, search.passes == 1422);
}

static void believes_the_kernel(struct suite *s)
{
	struct path_search search = { 0 };
	struct path path = { .carries = 1345, .is_told = true, .now = 5000 * SECOND };

	pass(s, &search, &path, 1472, 2);
	CHECK(s, search.passes == 1345 && path.questions <= 3);
	/* Data has met a still narrower path. */
	path.carries = 1300;
	pass(s, &search, &path, 1472, 8);
	CHECK(s, search.passes == 1300);
}

/* A silent peer says nothing of the path, and loss does not either. */
static void is_not_misled(struct suite *s)
{
	for (int round = 0; round < 50; round++) {
		struct path_search search = { 0 };
		struct path path = { .carries = 1472, .loss = 5, .now = 5000 * SECOND };
		pass(s, &search, &path, 1472, 40);
		CHECK(s, search.passes >= 1372);
	}
	struct path_search search = { 0 };
	struct path path = { .carries = 1472, .now = 5000 * SECOND };
	pass(s, &search, &path, 1472, 10);
	path.is_dead = true;
	path.questions = 0;
	pass(s, &search, &path, 1472, 300);
	CHECK(s, search.passes == 1472 && search.step == PATH_ASKS_LONGEST && path.questions <= 21);
	path.is_dead = false;
	pass(s, &search, &path, 1472, 40);
	CHECK(s, search.passes == 1472);
}

/* Another MTU of the tunnel, which may be longer than any usual length, or too short to search. */
static void follows_the_tunnel(struct suite *s)
{
	struct path_search search = { 0 };
	struct path path = { .carries = 8000, .now = 5000 * SECOND };

	pass(s, &search, &path, 1472, 5);
	CHECK(s, search.passes == 1472);
	pass(s, &search, &path, 8972, 60);
	CHECK(s, search.passes == 8000);
	pass(s, &search, &path, 65507, 90);
	CHECK(s, search.passes == 8000);
	path.questions = 0;
	pass(s, &search, &path, 68, 60);
	CHECK(s, path.questions == 0);
}

int main(void)
{
	struct suite s = { .name = "path-search", .random = 37 };

	finds_every_length(&s);
	needs_one_question_each_quarter_minute(&s);
	believes_the_kernel(&s);
	is_not_misled(&s);
	follows_the_tunnel(&s);
	return suite_end(&s);
}
