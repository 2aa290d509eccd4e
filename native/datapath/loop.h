/* What a forwarding thread does all its life. */
#ifndef TARTAN_LOOP_H
#define TARTAN_LOOP_H

#include "rx.h"
#include "tx.h"

/* How long a thread leaves a broken descriptor alone before it tries again. */
#define BROKEN_MS 50

/*
 * Takes turns of one worker, in one direction or both (the other is NULL), and sleeps while nothing waits. Returns when
 * the drain word is set and everything read was passed on.
 */
void loop_run(struct worker *worker, struct tx *tx, struct rx *rx);

#endif
