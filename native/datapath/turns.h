/*
 * The turns of the thread of sparse flows, by which the lanes keep the order of a flow that becomes bulk or dense: what
 * a lane has read may leave only after what came earlier to the sparse queue. A lane waits for that and never does the
 * work itself: with a lock, a thread that the scheduler holds back would hold up the sparse packets too.
 */
#ifndef TARTAN_TURNS_H
#define TARTAN_TURNS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Of one direction. The thread of the sparse flows is the only writer. */
struct turns {
	_Alignas(128) _Atomic uint32_t count; /* odd in a turn */
	_Atomic uint32_t emptied; /* count in the last turn that found nothing more */
	_Atomic bool is_over;     /* no turn will come */
	int queue;                /* the descriptor that a turn reads */
	uint32_t most;            /* as many turns read all that can wait */
};

void turns_open(struct turns *turns, int queue, uint32_t most);

/* Around each poll of the sparse worker. Everything that was read in a turn is passed on when it ends. */
void turns_begin(struct turns *turns);
void turns_end(struct turns *turns, bool emptied);
void turns_stop(struct turns *turns);

/*
 * Returns when everything is passed on that came to the sparse queue before the call. Gives up after WAIT_MS, when the
 * thread of the sparse flows has got no processor. Returns at once if `turns` is NULL.
 */
void turns_wait(const struct turns *turns);

#endif
