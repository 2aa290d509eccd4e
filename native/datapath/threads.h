/*
 * The forwarding threads. The process makes them ready, holds them back at a barrier until the system call filter is in
 * place, and starts them together.
 */
#ifndef TARTAN_THREADS_H
#define TARTAN_THREADS_H

#include "options.h"
#include "shared-files.h"
#include "loop.h"
#include "prober.h"
#include <pthread.h>

/* What a forwarding thread does: one direction of one lane, or both directions of the sparse flows. */
enum role { ROLE_TX, ROLE_RX, ROLE_SPARSE };

struct thread {
	struct worker worker;
	enum role role;
	bool is_dense; /* of the lane for dense flows */
	struct tx tx;
	struct rx rx;
	char name[16]; /* as shown by ps(1) */
	struct threads *threads;
	pthread_t id;
};

struct threads {
	size_t count;
	uint32_t features; /* of layout.h, in force for all threads */
	uint32_t refused; /* of layout.h */
	int done; /* eventfd: each thread adds one when it ends */
	pthread_barrier_t start_barrier;
	struct limiter limiter;
	struct prober prober;
	struct turns sparse_tx, sparse_rx; /* where there is a thread for sparse flows */
	struct thread thread[THREADS_MAX];
};

/* Takes the memory, the counter blocks and the `done` eventfd. Returns 0 or an errno with the step that failed. */
int threads_prepare(struct threads *threads, const struct options *options, const struct shared_files *files,
		    const char **step);

/* Starts the threads; returns when each waits at the barrier and makes no system call. Returns 0 or an errno. */
int threads_start(struct threads *threads);

/* Lets the threads pass the barrier: forwarding begins. */
void threads_release(struct threads *threads);

/* Waits for the threads, which end when the drain word is set. */
void threads_join(struct threads *threads);

#endif
