/* The loop of a forwarding thread: read the control words, poll, sleep. */
#ifndef TARTAN_LOOP_H
#define TARTAN_LOOP_H

#include "rx.h"
#include "tx.h"

/* How long a thread waits before it tries a broken descriptor again. */
#define BROKEN_MS 50

/*
 * Polls one worker in one direction (the other is NULL) or in both, and sleeps while nothing waits. Returns when the
 * drain word is set; everything that was read has been forwarded by then.
 */
void loop_run(struct worker *worker, struct tx *tx, struct rx *rx);

#endif
