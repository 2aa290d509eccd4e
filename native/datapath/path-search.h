/*
 * The search for the longest inner packet that the path to one peer carries, by questions of different lengths. Pure: the
 * caller sends the questions and tells what became of them.
 *
 *   first the longest packet of the tunnel; if that fails, what was known to pass before; if that fails too or nothing was
 *   known, the middle one of the usual lengths that are left, and at last the length to the byte by halves
 *
 * What was found is asked again after PATH_SEARCH_REST_NS. A length fails when the kernel refuses it, or when two
 * questions of it have no answer while the peer answers short ones.
 */
#ifndef TARTAN_PATH_SEARCH_H
#define TARTAN_PATH_SEARCH_H

#include <stdbool.h>
#include <stdint.h>

#define PATH_SEARCH_REST_NS UINT64_C(15000000000)
#define PATH_SEARCH_ANSWER_NS UINT64_C(500000000)
#define PATH_SEARCH_TRIES 2u
/* So often what is known is enough; then a search looks whether the path has become somewhat wider. */
#define PATH_SEARCH_ROUNDS 20u

enum path_search_step { PATH_ASKS_LONGEST, PATH_ASKS_KNOWN, PATH_SEARCHES };

struct path_search {
	enum path_search_step step;
	uint16_t longest; /* of the tunnel */
	uint16_t passes;  /* bytes of the longest inner packet that is known to pass; 0: not known */
	uint16_t fails;   /* of the shortest that is known to fail, while searching */
	uint16_t asking;  /* length of the question under way; 0: none */
	uint8_t tries;    /* of that length */
	uint8_t rounds;   /* since the last search */
	uint64_t asked_ns;
	uint64_t next_ns; /* when there is something to do, at the earliest */
};

/*
 * The length to ask for now, or 0. `longest` is that of the tunnel; `learnt` is what the kernel says the path carries,
 * more than that where it says nothing; `answered_ns` is when the peer answered a short question.
 */
uint16_t path_search_next(struct path_search *search, uint16_t longest, uint32_t learnt, uint64_t answered_ns,
			  uint64_t now_ns);

/* The question was sent, was answered, or was refused by the kernel as too long. */
void path_search_sent(struct path_search *search, uint16_t bytes, uint64_t now_ns);
void path_search_passed(struct path_search *search, uint16_t bytes, uint64_t now_ns);
void path_search_failed(struct path_search *search, uint16_t bytes, uint64_t now_ns);

#endif
