/*
 * The control words: the words at the head of the routes file by which tartand controls the data process. A thread
 * reads them before every poll, and adopts a newly published table then.
 */
#ifndef TARTAN_CONTROL_H
#define TARTAN_CONTROL_H

#include "worker.h"

enum control {
	CONTROL_FORWARD, /* read packets and forward them, or drop and count them when the gate is shut */
	CONTROL_PAUSED,  /* no MTU is set yet: read nothing, because another process may still be reading */
	CONTROL_STOP,    /* the drain word is set: end */
};

enum control control_poll(struct worker *worker);

/* Answers the newest question of tartand. For the worker's own thread only: it shows that this thread is not stuck. */
void control_answer(struct worker *worker);

#endif
