/*
 * The forwarding threads as a group: made ready and held back, then let go together once the process is sealed.
 */
#ifndef TARTAN_CREW_H
#define TARTAN_CREW_H

#include "options.h"
#include "shared-files.h"
#include "loop.h"
#include <pthread.h>

struct crew_member {
	struct worker worker;
	enum { SENDS, RECEIVES, SPARSE } work;
	struct tx tx;
	struct rx rx;
	char name[16]; /* as shown by ps(1) */
	struct crew *crew;
	pthread_t thread;
};

struct crew {
	size_t count;
	uint32_t features; /* of layout.h, in force for all members */
	int done; /* eventfd: each member adds one when it has finished */
	pthread_barrier_t gate;
	struct crew_member member[THREADS_MAX];
};

/* Memory, counter blocks and the `done` eventfd. Returns 0 or an errno with the step that failed. */
int crew_prepare(struct crew *crew, const struct options *options, const struct shared_files *files, const char **step);

/* Starts the threads; returns when each of them waits at the gate and makes no system call. Returns 0 or an errno. */
int crew_start(struct crew *crew);

/* Opens the gate: forwarding begins. */
void crew_release(struct crew *crew);

/* Waits for the threads, which end when the drain word is set. */
void crew_join(struct crew *crew);

#endif
