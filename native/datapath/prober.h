/*
 * The prober of the data process: it asks peers whether they hear, and answers their questions. All workers have one,
 * and its lock: a thread takes it last, after those of workers. The thread of one worker asks, when its time has come;
 * any thread that receives takes questions and answers (prober-take.c).
 *
 *   active pair   asked when it becomes active, after 1 s and 2 s more while it does not answer, then each 5 s
 *                 with a long question beside it where the path MTU is searched for, each 15 s (path-search.h)
 *   all others    in turn, one question a second for the whole host; who does not answer is asked twice more at once
 */
#ifndef TARTAN_PROBER_H
#define TARTAN_PROBER_H

#include "answer-limit.h"
#include "clock.h"
#include "due-peers.h"
#include "path-search.h"
#include "probe.h"
#include "round-trips.h"
#include "worker.h"

/*
 * Questions are told from each other by sequence: an answer may come after the next question was asked. Long ones, of
 * which there is one at a time, have this bit in it.
 */
#define LONG_SEQUENCE 0x80000000u
#define QUESTIONS_KEPT 4u
/* No host asks more often in a second: ten at once and one each 26 ms, or two. */
#define QUESTION_COST_NS (26 * MILLISECOND_NS)
#define QUESTION_BURST_NS (10 * QUESTION_COST_NS)
#define ASK_ACTIVE_NS (5 * SECOND_NS)
#define ASK_OTHERS_NS SECOND_NS
/* Where nobody may be asked it is looked again so late. */
#define OTHERS_IDLE_NS (60 * SECOND_NS)
#define OTHERS_TRIES 3u
/* How many peers are looked at in one turn of asking, at most. */
#define DUE_PER_TURN 64u
#define OTHERS_PER_TURN 1024u

struct question {
	bool is_open; /* asked and not answered */
	uint32_t sequence;
	uint64_t opaque;
	uint64_t at_ns;
};

/* What the process keeps of one peer beside its block. It belongs to the identity. */
struct probed_peer {
	uint32_t identity[4];
	struct answer_limit limit;
	uint32_t sequence;   /* of the newest question */
	uint32_t unanswered; /* in a row */
	uint64_t asked_ns;
	uint64_t next_ns;    /* when to ask while the pair is active */
	struct question question[QUESTIONS_KEPT]; /* at the place sequence % QUESTIONS_KEPT */
	struct question long_question;
	struct path_search path;
	struct round_trips trips;
	bool is_due; /* has an entry in `due`, whatever the identity */
};

struct prober {
	pthread_mutex_t lock;
	uint64_t random[2];         /* state of the generator */
	struct probed_peer *peer;   /* PEERS_MAX; a page that no peer has needed takes no memory */
	struct due_peers due;       /* peers of active pairs */
	uint8_t *bytes;             /* room for the longest question */
	_Atomic uint64_t next_ns;   /* when prober_ask() has something to do */
	uint64_t spent_ns;          /* the question that may be asked next, see QUESTION_COST_NS */
	uint64_t others_ns;         /* when the next of the others is asked */
	uint32_t other;             /* the number of the last one */
	uint32_t generation;        /* of the table that it was last asked from; only of the thread that asks */
};

/* Before the system call filter. Returns 0 or an errno. */
int prober_open(struct prober *prober);

/* Takes a probe that forward_inbound() found to be of peer `sender`. Call it with the worker's lock. */
void prober_take(struct worker *worker, const struct packet *p, const struct outer *outer, uint32_t sender);

/* Asks whom it is time to ask. Only the worker that asks calls it, with its lock and after control_poll(). */
void prober_ask(struct worker *worker);

/*
 * Asks from another socket than that of the worker, whose lane port it is. Returns whether it asked: those questions leave
 * half of the budget to the others. The answer comes to `fd`.
 */
bool prober_ask_from(struct worker *worker, int fd, uint32_t peer, uint64_t *opaque);

/* How long the thread that asks may sleep, in milliseconds. */
int prober_sleep_ms(const struct worker *worker, int longest_ms);

/* Data passes to or from a peer: it is asked at once, unless it is known as one of an active pair. */
void prober_activate(struct worker *worker, uint32_t peer);

/* For both files of the prober, with its lock. */

/* What is kept of the peer. That of a peer which had the number before is forgotten. */
struct probed_peer *prober_peer(struct worker *worker, uint32_t number);
uint64_t prober_random(struct prober *prober);
/* Returns 0 or an errno. */
int prober_send(int fd, uint32_t address, uint16_t port, const struct packet *p);

/* Of what passed as a question: the bytes of the longest inner packet that passes. */
static inline uint64_t inner_bytes(uint64_t passed, size_t extra)
{
	return passed > extra ? passed - extra : 0;
}

static inline uint64_t statistic(const struct peer_block *b, enum peer_statistic name)
{
	return atomic_load_explicit(&b->statistics[name], memory_order_relaxed);
}

static inline void set_statistic(struct peer_block *b, enum peer_statistic name, uint64_t value)
{
	atomic_store_explicit(&b->statistics[name], value, memory_order_relaxed);
}

#endif
